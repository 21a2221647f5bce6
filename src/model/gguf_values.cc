// GGUF metadata values and lookups in a parsed header. Touches no file.
#include <algorithm>
#include <limits>

#include "model/gguf.h"
#include "model/gguf_internal.h"

namespace shoal {
namespace {

std::uint64_t LittleEndian(const std::uint8_t* bytes, std::size_t n) {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < n; ++i) v |= std::uint64_t{bytes[i]} << (8 * i);
  return v;
}

std::optional<std::int64_t> Signed(std::uint64_t v) {
  if (v > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(v);
}

}  // namespace

namespace gguf_internal {

std::optional<std::uint64_t> TensorBytes(const TensorTypeInfo& type, std::span<const std::uint64_t> dims) {
  if (dims.empty() || dims[0] % type.block_elements != 0) return std::nullopt;
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const bool has_elements = std::find(dims.begin(), dims.end(), 0U) == dims.end();
  std::uint64_t elements = 1;
  for (const std::uint64_t dim : dims) {
    if (dim > kMax) return std::nullopt;
    if (!has_elements) continue;
    if (elements > kMax / dim) return std::nullopt;
    elements *= dim;
  }
  if (!has_elements) return 0;
  const std::uint64_t blocks = elements / type.block_elements;
  if (blocks > kMax / type.block_bytes) return std::nullopt;
  return blocks * type.block_bytes;
}

}  // namespace gguf_internal

GgufValue GgufValue::U32(std::uint32_t v) { return {GgufType::kUint32, std::uint64_t{v}}; }
GgufValue GgufValue::F32(float v) { return {GgufType::kFloat32, static_cast<double>(v)}; }
GgufValue GgufValue::Bool(bool v) { return {GgufType::kBool, v}; }
GgufValue GgufValue::String(std::string v) { return {GgufType::kString, std::move(v)}; }

GgufValue GgufValue::ArrayU32(std::span<const std::uint32_t> values) {
  GgufArray array;
  array.type = GgufType::kUint32;
  array.count = values.size();
  array.bytes.reserve(values.size() * 4);
  for (const std::uint32_t v : values) {
    for (int shift = 0; shift < 32; shift += 8) array.bytes.push_back(static_cast<std::uint8_t>(v >> shift));
  }
  return {GgufType::kArray, std::move(array)};
}

GgufValue GgufValue::ArrayBool(const std::vector<bool>& values) {
  GgufArray array;
  array.type = GgufType::kBool;
  array.count = values.size();
  array.bytes.reserve(values.size());
  for (const bool v : values) array.bytes.push_back(v ? 1 : 0);
  return {GgufType::kArray, std::move(array)};
}

std::optional<std::int64_t> GgufValue::AsInt() const {
  if (const auto* u = std::get_if<std::uint64_t>(&value)) return Signed(*u);
  if (const auto* i = std::get_if<std::int64_t>(&value)) return *i;
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1 : 0;
  return std::nullopt;
}

std::optional<double> GgufValue::AsDouble() const {
  if (const auto* d = std::get_if<double>(&value)) return *d;
  if (const auto* u = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<std::int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1.0 : 0.0;
  return std::nullopt;
}

const std::string* GgufValue::AsString() const { return std::get_if<std::string>(&value); }
const GgufArray* GgufValue::AsArray() const { return std::get_if<GgufArray>(&value); }

std::size_t GgufTypeBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool: return 1;
    case GgufType::kUint16:
    case GgufType::kInt16: return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32: return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64: return 8;
    case GgufType::kString:
    case GgufType::kArray: break;
  }
  return 0;
}

std::optional<std::int64_t> ArrayInt(const GgufArray& array, std::uint64_t index) {
  const std::size_t width = GgufTypeBytes(array.type);
  if (width == 0 || index >= array.count || index >= array.bytes.size() / width) return std::nullopt;
  const std::uint64_t raw = LittleEndian(array.bytes.data() + index * width, width);
  switch (array.type) {
    case GgufType::kUint8:
    case GgufType::kUint16:
    case GgufType::kUint32:
    case GgufType::kUint64: return Signed(raw);
    case GgufType::kInt8: return static_cast<std::int8_t>(raw);
    case GgufType::kInt16: return static_cast<std::int16_t>(raw);
    case GgufType::kInt32: return static_cast<std::int32_t>(raw);
    case GgufType::kInt64: return static_cast<std::int64_t>(raw);
    case GgufType::kBool: return raw != 0 ? 1 : 0;
    default: return std::nullopt;
  }
}

const GgufValue* Gguf::Find(std::string_view key) const {
  for (const auto& [k, v] : metadata) {
    if (k == key) return &v;
  }
  return nullptr;
}

const GgufTensor* Gguf::FindTensor(std::string_view name) const {
  for (const GgufTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

void Gguf::Set(std::string key, GgufValue value) {
  for (auto& [k, v] : metadata) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  metadata.emplace_back(std::move(key), std::move(value));
}

void Gguf::Remove(std::string_view key) {
  std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
}

}  // namespace shoal
