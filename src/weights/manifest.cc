// The rule that cuts a file into ranges, and the bytes of a manifest:
//
//   "SHLM"  u32 version 1  u32 chunk_bytes  u32 0  u64 file_bytes  u64 header_bytes  header  then 32 bytes a chunk,
//   ranges in their order
//
// of a sourced one version 2 and, instead of hashes: u32 files, each u32 n, URL [n], u32 n, ETag [n], u64 bytes, u8 0
// or 1 and then SHA-256 [32]; u32 extents, each u64 offset, u64 bytes, u32 file, u64 offset in it
#include "weights/manifest.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/units.h"
#include "wire/bytes.h"

namespace shoal {
namespace {

constexpr std::uint8_t kMagic[4] = {'S', 'H', 'L', 'M'};
constexpr std::uint32_t kVersion = 1, kSourcedVersion = 2;
constexpr std::size_t kSourceBytesMin = 4 + 4 + 8 + 1, kExtentBytes = 8 + 8 + 4 + 8;  // of one, as written
constexpr std::size_t kFixedBytes = 4 + 4 + 4 + 4 + 8 + 8;
constexpr char kBlobLabel[] = "shoal range";

struct RangeKey {
  RangeKind kind;
  std::int32_t layer;
  auto operator<=>(const RangeKey&) const = default;
};

// A layer beyond the model's (an extra prediction head) is a layer like any other: no stage asks for it.
RangeKey KeyOf(const std::string& name) {
  if (name.starts_with("blk.")) {
    std::int32_t layer = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + 4, end, layer);
    if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '.' && layer >= 0) {
      return {RangeKind::kLayer, layer};
    }
    return {RangeKind::kShared, 0};
  }
  if (name == "token_embd.weight") return {RangeKind::kEmbedding, 0};
  if (name.starts_with("output")) return {RangeKind::kOutput, 0};
  return {RangeKind::kShared, 0};
}

std::uint32_t ChunkBytesFor(std::uint64_t file_bytes) {
  std::uint32_t chunk = kChunkBytesMin;
  while (chunk < kChunkBytesMax && file_bytes / chunk > kChunksAimed) chunk *= 2;
  return chunk;
}

void PutLittle(std::vector<std::uint8_t>& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::uint64_t GetLittle(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t n) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < n; ++i) value |= std::uint64_t{bytes[at + i]} << (8 * i);
  return value;
}

Error Damaged(const std::string& why) { return {ErrorCode::kCorrupt, "the model's manifest is damaged: " + why}; }

void PutSources(std::vector<std::uint8_t>& bytes, const Manifest& manifest) {
  ByteWriter out(bytes);
  const auto put_text = [&](const std::string& text) {
    out.Put(static_cast<std::uint32_t>(text.size()));
    out.PutText(text);
  };
  out.Put(static_cast<std::uint32_t>(manifest.sources.size()));
  for (const SourceFile& file : manifest.sources) {
    put_text(file.url);
    put_text(file.etag);
    out.Put(file.bytes);
    out.Put(std::uint8_t{file.sha256.has_value()});
    if (file.sha256) out.PutArray(std::span<const std::uint8_t>(*file.sha256));
  }
  out.Put(static_cast<std::uint32_t>(manifest.extents.size()));
  for (const PartExtent& extent : manifest.extents) {
    out.Put(extent.offset);
    out.Put(extent.bytes);
    out.Put(static_cast<std::uint32_t>(extent.part));
    out.Put(extent.part_offset);
  }
}

SourceFile GetSource(ByteReader& in) {
  SourceFile file;
  file.url = in.GetText(in.GetCount(kSourceTextBytesMax, 1));
  file.etag = in.GetText(in.GetCount(kSourceTextBytesMax, 1));
  file.bytes = in.Get<std::uint64_t>();
  const auto has_hash = in.Get<std::uint8_t>();
  if (has_hash > 1) in.Fail();
  if (has_hash == 1) {
    const auto bytes = in.Take(sizeof(Digest));
    file.sha256.emplace();
    if (!bytes.empty()) std::memcpy(file.sha256->data(), bytes.data(), bytes.size());
  }
  return file;
}

// What PutSources wrote, all of it: extents that lie in the model and in their file, one behind the other.
bool GetSources(std::span<const std::uint8_t> bytes, Manifest& manifest) {
  ByteReader in(bytes);
  const std::uint32_t files = in.GetCount(kGgufPartsMax, kSourceBytesMin);
  for (std::uint32_t i = 0; i < files; ++i) manifest.sources.push_back(GetSource(in));
  const std::uint32_t extents = in.GetCount(UINT32_MAX, kExtentBytes);
  std::uint64_t end = 0;
  for (std::uint32_t i = 0; i < extents; ++i) {
    PartExtent extent;
    extent.offset = in.Get<std::uint64_t>();
    extent.bytes = in.Get<std::uint64_t>();
    extent.part = in.Get<std::uint32_t>();
    extent.part_offset = in.Get<std::uint64_t>();
    if (extent.part >= files || extent.bytes == 0 || extent.offset < end) return false;
    const auto within = [&](std::uint64_t offset, std::uint64_t all) {
      return offset <= all && extent.bytes <= all - offset;
    };
    if (!within(extent.offset, manifest.file_bytes)) return false;
    if (!within(extent.part_offset, manifest.sources[extent.part].bytes)) return false;
    end = extent.offset + extent.bytes;
    manifest.extents.push_back(extent);
  }
  return in.AtEnd() && manifest.sourced();
}

}  // namespace

std::string WeightRange::Name() const {
  switch (kind) {
    case RangeKind::kLayer: return "layer " + std::to_string(layer);
    case RangeKind::kEmbedding: return "embeddings";
    case RangeKind::kOutput: return "output";
    case RangeKind::kShared: break;
  }
  return "shared tensors";
}

std::uint64_t Manifest::ChunkCount(std::size_t range) const {
  return (ranges[range].bytes + chunk_bytes - 1) / chunk_bytes;
}

std::uint64_t Manifest::ChunksBefore(std::size_t range) const {
  std::uint64_t chunks = 0;
  for (std::size_t i = 0; i < range; ++i) chunks += ChunkCount(i);
  return chunks;
}

std::uint64_t Manifest::ChunkBytes(std::size_t range, std::uint64_t chunk) const {
  const std::uint64_t start = chunk * chunk_bytes;
  SHOAL_CHECK(start < ranges[range].bytes);
  return std::min<std::uint64_t>(chunk_bytes, ranges[range].bytes - start);
}

bool Manifest::known() const {
  return std::all_of(ranges.begin(), ranges.end(), [](const WeightRange& range) { return range.known(); });
}

Result<Manifest> DescribeRanges(std::span<const std::uint8_t> header, std::uint64_t file_bytes) {
  if (file_bytes > kModelBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 "a model of " + FormatBytes(file_bytes) + " is larger than this program takes"};
  }
  SHOAL_ASSIGN_OR_RETURN(const Gguf gguf, ParseGguf(header, file_bytes));
  SHOAL_RETURN_IF_ERROR([&]() -> Status {
    const Result<ModelInfo> info = DescribeModel(gguf, "model");
    return info.ok() ? Status() : Status(info.error());
  }());
  Manifest manifest;
  manifest.file_bytes = file_bytes;
  manifest.chunk_bytes = ChunkBytesFor(file_bytes);
  const std::uint64_t data = std::min(gguf.data_offset, file_bytes);
  if (header.size() < data) return Error{ErrorCode::kCorrupt, "the GGUF header is cut off before its data"};
  manifest.header.assign(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(data));

  std::map<RangeKey, std::vector<Extent>> found;
  for (std::size_t i = 0; i < gguf.tensors.size(); ++i) {
    // Tensors lie back to back: the parser has seen to that.
    const std::uint64_t start = i == 0 ? data : data + gguf.tensors[i].offset;
    const std::uint64_t end = i + 1 < gguf.tensors.size() ? data + gguf.tensors[i + 1].offset : file_bytes;
    if (end <= start) continue;
    std::vector<Extent>& extents = found[KeyOf(gguf.tensors[i].name)];
    if (!extents.empty() && extents.back().offset + extents.back().bytes == start) {
      extents.back().bytes += end - start;
    } else {
      extents.push_back({start, end - start});
    }
  }
  for (auto& [key, extents] : found) {
    WeightRange range;
    range.kind = key.kind;
    range.layer = key.layer;
    for (const Extent& extent : extents) range.bytes += extent.bytes;
    range.extents = std::move(extents);
    manifest.ranges.push_back(std::move(range));
  }
  return manifest;
}

Result<std::shared_ptr<const ModelFile>> ModelOf(const Manifest& manifest, const std::string& name,
                                                 std::shared_ptr<const TensorSource> source) {
  return MakeModelFile(name, manifest.header, manifest.file_bytes, std::move(source));
}

std::vector<std::uint8_t> EncodeManifest(const Manifest& manifest) {
  SHOAL_CHECK(manifest.sourced() || manifest.known());
  std::vector<std::uint8_t> out(kMagic, kMagic + sizeof kMagic);
  PutLittle(out, manifest.sourced() ? kSourcedVersion : kVersion, 4);
  PutLittle(out, manifest.chunk_bytes, 4);
  PutLittle(out, 0, 4);
  PutLittle(out, manifest.file_bytes, 8);
  PutLittle(out, manifest.header.size(), 8);
  out.insert(out.end(), manifest.header.begin(), manifest.header.end());
  if (manifest.sourced()) {
    PutSources(out, manifest);
    return out;
  }
  for (const WeightRange& range : manifest.ranges) {
    for (const Digest& chunk : range.chunks) out.insert(out.end(), chunk.begin(), chunk.end());
  }
  return out;
}

Result<Manifest> ParseManifest(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < kFixedBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return Damaged("it does not begin as one");
  }
  if (bytes.size() > kManifestBytesMax) return Damaged("it is too long");
  const std::uint64_t version = GetLittle(bytes, 4, 4);
  if (version != kVersion && version != kSourcedVersion) {
    return Error{ErrorCode::kUnsupported, "manifest version " + std::to_string(version) +
                                              "; this program knows versions up to " + std::to_string(kSourcedVersion)};
  }
  const std::uint64_t chunk_bytes = GetLittle(bytes, 8, 4), zero = GetLittle(bytes, 12, 4);
  const std::uint64_t file_bytes = GetLittle(bytes, 16, 8), header_bytes = GetLittle(bytes, 24, 8);
  bytes = bytes.subspan(kFixedBytes);
  if (zero != 0 || header_bytes > bytes.size()) return Damaged("it ends inside the header");
  Result<Manifest> manifest = DescribeRanges(bytes.first(header_bytes), file_bytes);
  if (!manifest.ok()) return manifest;
  if (manifest->header.size() != header_bytes || manifest->chunk_bytes != chunk_bytes) {
    return Damaged("its sizes are not the header's");
  }
  bytes = bytes.subspan(header_bytes);
  if (version == kSourcedVersion) {
    if (!GetSources(bytes, *manifest)) return Damaged("it does not say where its bytes are");
    return manifest;
  }
  const std::uint64_t chunks = manifest->ChunksBefore(manifest->ranges.size());
  if (bytes.size() % sizeof(Digest) != 0 || bytes.size() / sizeof(Digest) != chunks) {
    return Damaged("it has not one hash for each chunk");
  }
  for (std::size_t i = 0; i < manifest->ranges.size(); ++i) {
    std::vector<Digest>& hashes = manifest->ranges[i].chunks;
    hashes.resize(manifest->ChunkCount(i));
    std::memcpy(hashes.data(), bytes.data(), hashes.size() * sizeof(Digest));
    bytes = bytes.subspan(hashes.size() * sizeof(Digest));
  }
  return manifest;
}

ModelFingerprint FingerprintOf(std::span<const std::uint8_t> header, std::uint64_t file_bytes) {
  std::vector<std::uint8_t> text(header.begin(), header.end());
  PutLittle(text, file_bytes, 8);
  constexpr std::string_view kLabel = "shoal model";
  const SecretKey digest = HmacSha256({reinterpret_cast<const std::uint8_t*>(kLabel.data()), kLabel.size()}, text);
  const ModelFingerprint fingerprint = GetLittle(digest.bytes, 0, 8);
  return fingerprint == 0 ? 1 : fingerprint;
}

Result<ModelFingerprint> FingerprintOf(const ModelFile& model) {
  std::vector<std::uint8_t> header(model.gguf.data_offset);
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, model.source->Open());
  SHOAL_RETURN_IF_ERROR(reader->Read(0, header));
  return FingerprintOf(header, model.gguf.file_bytes);
}

Digest BlobId(const WeightRange& range, std::uint32_t chunk_bytes) {
  SHOAL_CHECK(range.known());
  std::vector<std::uint8_t> text(kBlobLabel, kBlobLabel + sizeof kBlobLabel);
  PutLittle(text, chunk_bytes, 4);
  PutLittle(text, range.bytes, 8);
  for (const Digest& chunk : range.chunks) text.insert(text.end(), chunk.begin(), chunk.end());
  return Sha256(text);
}

std::string HexOf(const Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const std::uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool ParseHex(std::string_view text, Digest& digest) {
  if (text.size() != 2 * digest.size()) return false;
  const auto value = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const int high = value(text[2 * i]), low = value(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    digest[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

}  // namespace shoal
