// A model file opened: one GGUF file, or all the parts that lie beside the one that was named.
#include <algorithm>
#include <cstring>
#include <utility>

#include "model/model_info.h"
#include "model/split_gguf.h"

namespace shoal {
namespace {

struct Parts {
  std::string first_path;
  std::vector<std::shared_ptr<const TensorSource>> files;
  JoinedGguf joined;
};

// Opens a part when it is first read.
class PartsReader final : public TensorReader {
 public:
  explicit PartsReader(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)), files_(parts_->files.size()) {}

  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override {
    const JoinedGguf& joined = parts_->joined;
    if (offset > joined.file_bytes || out.size() > joined.file_bytes - offset) {
      return Error{ErrorCode::kIo, parts_->first_path + ": the model ends early"};
    }
    while (!out.empty()) {
      std::uint64_t n = 0;
      if (offset < joined.header.size()) {
        n = std::min<std::uint64_t>(out.size(), joined.header.size() - offset);
        std::memcpy(out.data(), joined.header.data() + offset, n);
      } else {
        const auto [extent, bytes] = PlaceIn(joined.extents, offset, joined.file_bytes);
        n = std::min<std::uint64_t>(out.size(), bytes);
        if (extent != nullptr) {
          SHOAL_RETURN_IF_ERROR(OpenPart(extent->part));
          SHOAL_RETURN_IF_ERROR(
              files_[extent->part]->Read(extent->part_offset + (offset - extent->offset), out.first(n)));
        } else {
          std::memset(out.data(), 0, n);
        }
      }
      out = out.subspan(n);
      offset += n;
    }
    return {};
  }

  bool Waits(std::uint64_t offset) override {
    const PartExtent* const extent = PlaceIn(parts_->joined.extents, offset, parts_->joined.file_bytes).extent;
    if (extent == nullptr || !OpenPart(extent->part).ok()) return false;
    return files_[extent->part]->Waits(extent->part_offset + (offset - extent->offset));
  }

 private:
  Status OpenPart(std::size_t part) {
    if (files_[part] == nullptr) { SHOAL_ASSIGN_OR_RETURN(files_[part], parts_->files[part]->Open()); }
    return {};
  }

  const std::shared_ptr<const Parts> parts_;
  std::vector<std::unique_ptr<TensorReader>> files_;  // by part; null: not open
};

class PartsSource final : public TensorSource {
 public:
  explicit PartsSource(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
  Result<std::unique_ptr<TensorReader>> Open() const override {
    return std::unique_ptr<TensorReader>(std::make_unique<PartsReader>(parts_));
  }

 private:
  const std::shared_ptr<const Parts> parts_;
};

Result<Parts> ReadParts(const SplitName& name) {
  Parts parts;
  std::vector<Gguf> headers;
  std::vector<std::string> names;
  for (std::int32_t i = 1; i <= name.parts; ++i) {
    names.push_back(PartName(name, i));
    Result<Gguf> header = ReadGguf(names.back());
    if (!header.ok() && header.error().code == ErrorCode::kNotFound) {
      return Error{ErrorCode::kNotFound, "part " + std::to_string(i) + " of " + std::to_string(name.parts) +
                                             " of the model is missing: there is no " + names.back()};
    }
    if (!header.ok()) return std::move(header).error();
    parts.files.push_back(MakeFileSource(names.back(), header->file_bytes));
    if (i > 1) KeepOnlyWhoseItIs(*header);
    headers.push_back(*std::move(header));
  }
  parts.first_path = names.front();
  SHOAL_ASSIGN_OR_RETURN(parts.joined, JoinGguf(headers, names));
  return parts;
}

}  // namespace

Result<std::shared_ptr<const ModelFile>> MakeModelFile(const std::string& path, std::span<const std::uint8_t> header,
                                                       std::uint64_t file_bytes,
                                                       std::shared_ptr<const TensorSource> source) {
  auto file = std::make_shared<ModelFile>();
  file->path = path;
  SHOAL_ASSIGN_OR_RETURN(file->gguf, ParseGguf(header, file_bytes));
  SHOAL_ASSIGN_OR_RETURN(file->info, DescribeModel(file->gguf, path));
  file->source = std::move(source);
  return std::shared_ptr<const ModelFile>(std::move(file));
}

Result<std::shared_ptr<const ModelFile>> OpenModelFile(const std::string& path) {
  auto file = std::make_shared<ModelFile>();
  file->path = path;
  const auto split = ParseSplitName(path);
  if (split && split->parts > 1) {
    auto parts = std::make_shared<Parts>();
    SHOAL_ASSIGN_OR_RETURN(*parts, ReadParts(*split));
    file->path = parts->first_path;
    SHOAL_ASSIGN_OR_RETURN(file->gguf, ParseGguf(parts->joined.header, parts->joined.file_bytes));
    file->source = std::make_shared<PartsSource>(std::move(parts));
  } else {
    SHOAL_ASSIGN_OR_RETURN(file->gguf, ReadGguf(path));
    file->source = MakeFileSource(path, file->gguf.file_bytes);
  }
  Result<ModelInfo> info = DescribeModel(file->gguf, file->path);
  if (!info.ok()) return Error{info.error().code, path + ": " + info.error().message};
  file->info = std::move(info).value();
  return std::shared_ptr<const ModelFile>(std::move(file));
}

}  // namespace shoal
