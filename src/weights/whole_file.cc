// Each file's bytes in their order: its head, the model's bytes, its tail.
#include "weights/whole_file.h"

#include <algorithm>
#include <cstddef>

namespace shoal {
namespace {

constexpr std::uint64_t kHashPieceBytes = 8U << 20;

Result<std::vector<std::uint8_t>> Fetch(HttpFile& file, const std::string& name, std::uint64_t from, std::uint64_t to) {
  if (to - from > kManifestBytesMax) {
    return Error{ErrorCode::kCorrupt, name + " has " + std::to_string(to - from) + " bytes beside its weights"};
  }
  std::vector<std::uint8_t> bytes;
  SHOAL_RETURN_IF_ERROR(file.Read(from, to - from, [&](std::span<const std::uint8_t> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return Status();
  }));
  return bytes;
}

}  // namespace

Result<HashedFile> HashedFileOf(const RemoteBytes& from, std::size_t index, std::span<const std::uint8_t> head,
                                const HttpOptions& http) {
  HashedFile one;
  one.name = WithoutQuery(from.files[index].url.Text());
  one.sha256 = *from.facts[index].sha256;
  std::uint64_t begin = from.facts[index].bytes, end = 0;
  for (const PartExtent& extent : from.extents) {
    if (extent.part != index) continue;
    one.extents.push_back({extent.offset, extent.bytes});
    begin = std::min(begin, extent.part_offset);
    end = std::max(end, extent.part_offset + extent.bytes);
  }
  HttpFile file(from.files[index].url, http);
  file.Expect(from.facts[index]);
  const std::uint64_t known = std::min<std::uint64_t>(head.size(), begin);
  one.head.assign(head.begin(), head.begin() + static_cast<std::ptrdiff_t>(known));
  SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> rest, Fetch(file, one.name, known, begin));
  one.head.insert(one.head.end(), rest.begin(), rest.end());
  SHOAL_ASSIGN_OR_RETURN(one.tail, Fetch(file, one.name, std::max(begin, end), from.facts[index].bytes));
  return one;
}

// The bytes of the file in their order, each from the range that has it.
Result<Digest> HashFile(const HashedFile& file, TensorReader& reader, std::uint64_t& done,
                        const std::function<bool(std::uint64_t)>& progress) {
  Sha256Stream hash;
  hash.Update(file.head);
  std::vector<std::uint8_t> piece(kHashPieceBytes);
  for (const Extent& extent : file.extents) {
    for (std::uint64_t at = 0; at < extent.bytes; at += piece.size()) {
      piece.resize(std::min(kHashPieceBytes, extent.bytes - at));
      SHOAL_RETURN_IF_ERROR(reader.Read(extent.offset + at, piece));
      hash.Update(piece);
      done += piece.size();
      if (progress && !progress(done)) return Error{ErrorCode::kCancelled, "verifying was cancelled"};
    }
  }
  hash.Update(file.tail);
  return hash.Finish();
}

Status CheckWholeFiles(const std::shared_ptr<const WeightStore>& store, const StoredModel& model,
                       const HttpOptions& http) {
  const Manifest& manifest = *model.manifest;
  SHOAL_ASSIGN_OR_RETURN(const RemoteBytes from, RemoteBytesOf(manifest));
  SHOAL_ASSIGN_OR_RETURN(const auto reader, MakeStoreSource(store, model)->Open());
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < manifest.sources.size(); ++i) {
    if (!manifest.sources[i].sha256) continue;
    SHOAL_ASSIGN_OR_RETURN(const HashedFile file, HashedFileOf(from, i, {}, http));
    const auto go_on = [&](std::uint64_t) { return !http.cancelled || !http.cancelled(); };
    SHOAL_ASSIGN_OR_RETURN(const Digest have, HashFile(file, *reader, done, go_on));
    if (have == file.sha256) continue;
    return Error{ErrorCode::kCorrupt, "what came of " + model.name + " is not what the hub says " + file.name +
                                          " is (SHA-256 " + HexOf(have) + ", expected " + HexOf(file.sha256) +
                                          "): `shoal rm " + model.name + "` on all nodes, then place it again"};
  }
  return {};
}

}  // namespace shoal
