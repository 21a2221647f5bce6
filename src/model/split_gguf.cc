// Names by their fixed form; parts checked against the first; extents as the tensors follow each other.
#include "model/split_gguf.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <unordered_set>

#include "model/gguf_internal.h"

namespace shoal {
namespace {

constexpr std::string_view kEnding = ".gguf", kOf = "-of-";
constexpr std::size_t kDigits = 5;
constexpr std::size_t kSuffix = 1 + kDigits + kOf.size() + kDigits + kEnding.size();
constexpr std::string_view kPartKey = "split.no", kPartsKey = "split.count", kTensorsKey = "split.tensors.count";

std::optional<std::int32_t> Number(std::string_view digits) {
  std::int32_t value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    value = 10 * value + (c - '0');
  }
  return value;
}

std::optional<std::int64_t> Int(const Gguf& gguf, std::string_view key) {
  const GgufValue* value = gguf.Find(key);
  return value == nullptr ? std::nullopt : value->AsInt();
}

// What every part repeats of the model, if it repeats anything.
Status CheckPart(const Gguf& first, const Gguf& part, std::size_t index, std::size_t parts, const std::string& name) {
  const auto no = Int(part, kPartKey), count = Int(part, kPartsKey);
  if (no != static_cast<std::int64_t>(index) || count != static_cast<std::int64_t>(parts)) {
    return Error{ErrorCode::kCorrupt, name + " says that it is part " + (no ? std::to_string(*no + 1) : "?") + " of " +
                                          (count ? std::to_string(*count) : "?") + ", where part " +
                                          std::to_string(index + 1) + " of " + std::to_string(parts) + " was expected"};
  }
  const auto of_another = [&](std::string_view key) {
    const GgufValue *ours = part.Find(key), *theirs = first.Find(key);
    return ours != nullptr && theirs != nullptr && *ours != *theirs;
  };
  for (const std::string_view key : {kTensorsKey, std::string_view("general.architecture"),
                                     std::string_view("general.name"), std::string_view("general.file_type")}) {
    if (of_another(key)) return Error{ErrorCode::kCorrupt, name + " is part of another model than the first part"};
  }
  if (part.alignment != first.alignment) {
    return Error{ErrorCode::kCorrupt, name + " has another alignment than the first part"};
  }
  return {};
}

}  // namespace

std::optional<SplitName> ParseSplitName(std::string_view path) {
  if (path.size() <= kSuffix || !path.ends_with(kEnding)) return std::nullopt;
  const std::string_view suffix = path.substr(path.size() - kSuffix);
  if (suffix[0] != '-' || suffix.substr(1 + kDigits, kOf.size()) != kOf) return std::nullopt;
  const auto part = Number(suffix.substr(1, kDigits)), parts = Number(suffix.substr(1 + kDigits + kOf.size(), kDigits));
  if (!part || !parts || *part < 1 || *part > *parts || *parts > kGgufPartsMax) return std::nullopt;
  return SplitName{std::string(path.substr(0, path.size() - kSuffix)), *part, *parts};
}

std::string PartName(const SplitName& name, std::int32_t part) {
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", part, name.parts);
  return name.stem + suffix;
}

std::string FirstPartOf(const std::string& path) {
  const auto split = ParseSplitName(path);
  return split ? PartName(*split, 1) : path;
}

std::int64_t PartsOf(const Gguf& gguf) { return Int(gguf, kPartsKey).value_or(1); }

void KeepOnlyWhoseItIs(Gguf& part) {
  std::erase_if(part.metadata, [](const auto& entry) { return entry.second.AsArray() != nullptr; });
}

JoinedPlace PlaceIn(std::span<const PartExtent> extents, std::uint64_t offset, std::uint64_t end) {
  SHOAL_CHECK(offset < end);
  const auto next = std::upper_bound(extents.begin(), extents.end(), offset,
                                     [](std::uint64_t at, const PartExtent& extent) { return at < extent.offset; });
  if (next != extents.begin()) {
    const PartExtent& extent = *std::prev(next);
    if (offset - extent.offset < extent.bytes) return {&extent, extent.bytes - (offset - extent.offset)};
  }
  return {nullptr, (next == extents.end() ? end : next->offset) - offset};
}

Result<JoinedGguf> JoinGguf(std::span<const Gguf> parts, std::span<const std::string> names) {
  SHOAL_CHECK(!parts.empty() && parts.size() == names.size());
  Gguf joined;
  joined.alignment = parts[0].alignment;
  for (const auto& [key, value] : parts[0].metadata) {
    if (!key.starts_with("split.")) joined.metadata.emplace_back(key, value);
  }
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    SHOAL_RETURN_IF_ERROR(CheckPart(parts[0], parts[i], i, parts.size(), names[i]));
    for (const GgufTensor& tensor : parts[i].tensors) {
      if (!seen.insert(tensor.name).second) {
        return Error{ErrorCode::kCorrupt, names[i] + " has a tensor that another part has too: " + tensor.name};
      }
      joined.tensors.push_back(tensor);
    }
  }
  const auto expected = Int(parts[0], kTensorsKey);
  if (expected && *expected != static_cast<std::int64_t>(joined.tensors.size())) {
    return Error{ErrorCode::kCorrupt, "the parts of " + names[0] + " have " + std::to_string(joined.tensors.size()) +
                                          " tensors together, the first says " + std::to_string(*expected)};
  }
  if (joined.tensors.size() > kGgufTensorsMax) return Error{ErrorCode::kCorrupt, names[0] + " has too many tensors"};
  std::uint64_t room = INT64_MAX;
  for (const GgufTensor& tensor : joined.tensors) {
    const auto padded = gguf_internal::AlignUp(tensor.bytes, joined.alignment);
    if (!padded || *padded > room) return Error{ErrorCode::kCorrupt, "the tensors of " + names[0] + " are too large"};
    room -= *padded;
  }
  const std::uint64_t data_bytes = LayOutTensors(joined);
  JoinedGguf out;
  out.header = SerializeGguf(joined);
  if (out.header.size() > kGgufHeaderBytesMax ||
      data_bytes > static_cast<std::uint64_t>(INT64_MAX) - out.header.size()) {
    return Error{ErrorCode::kCorrupt, "the parts of " + names[0] + " are too large"};
  }
  out.file_bytes = out.header.size() + data_bytes;
  // The tensors of a part follow each other in its file as they do in the joined one.
  std::size_t next = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].tensors.empty()) continue;
    const GgufTensor& last = parts[i].tensors.back();
    out.extents.push_back(
        {out.header.size() + joined.tensors[next].offset, last.offset + last.bytes, i, parts[i].data_offset});
    next += parts[i].tensors.size();
  }
  return out;
}

}  // namespace shoal
