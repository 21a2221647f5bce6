// Writes GGUF headers, version 3, little-endian. Its input is ours: what breaks the format is a CHECK.
#include <bit>

#include "base/check.h"
#include "model/gguf.h"
#include "model/gguf_internal.h"

namespace shoal {
namespace {

using namespace gguf_internal;

class Writer {
 public:
  void Raw(std::uint64_t v, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out_.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
  }
  void U32(std::uint32_t v) { Raw(v, 4); }
  void U64(std::uint64_t v) { Raw(v, 8); }
  void Bytes(std::span<const std::uint8_t> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void String(std::string_view s) {
    U64(s.size());
    out_.insert(out_.end(), s.begin(), s.end());
  }
  void Array(const GgufArray& array);
  void Value(const GgufValue& value);
  void PadTo(std::uint64_t alignment) { out_.resize(AlignUp(out_.size(), alignment).value()); }
  std::vector<std::uint8_t> Take() && { return std::move(out_); }

 private:
  std::vector<std::uint8_t> out_;
};

void Writer::Array(const GgufArray& array) {
  U32(static_cast<std::uint32_t>(array.type));
  U64(array.count);
  if (array.type == GgufType::kString) {
    SHOAL_CHECK(array.strings.size() == array.count);
    for (const std::string& s : array.strings) String(s);
  } else {
    const std::size_t width = GgufTypeBytes(array.type);
    SHOAL_CHECK(width != 0 && array.bytes.size() % width == 0 && array.bytes.size() / width == array.count);
    Bytes(array.bytes);
  }
}

void Writer::Value(const GgufValue& value) {
  const GgufType type = value.type;
  U32(static_cast<std::uint32_t>(type));
  if (type == GgufType::kArray) {
    const GgufArray* array = value.AsArray();
    SHOAL_CHECK(array != nullptr);
    Array(*array);
  } else if (type == GgufType::kString) {
    const std::string* s = value.AsString();
    SHOAL_CHECK(s != nullptr);
    String(*s);
  } else if (type == GgufType::kBool) {
    SHOAL_CHECK(std::holds_alternative<bool>(value.value));
    Raw(std::get<bool>(value.value) ? 1 : 0, 1);
  } else if (type == GgufType::kFloat32 || type == GgufType::kFloat64) {
    SHOAL_CHECK(std::holds_alternative<double>(value.value));
    const double v = std::get<double>(value.value);
    if (type == GgufType::kFloat64)
      U64(std::bit_cast<std::uint64_t>(v));
    else
      U32(std::bit_cast<std::uint32_t>(static_cast<float>(v)));
  } else if (const auto* u = std::get_if<std::uint64_t>(&value.value)) {
    Raw(*u, GgufTypeBytes(type));
  } else {
    SHOAL_CHECK(std::holds_alternative<std::int64_t>(value.value));
    Raw(static_cast<std::uint64_t>(std::get<std::int64_t>(value.value)), GgufTypeBytes(type));
  }
}

}  // namespace

std::vector<std::uint8_t> SerializeGguf(const Gguf& gguf) {
  SHOAL_CHECK(std::has_single_bit(gguf.alignment) && gguf.alignment <= UINT32_MAX);
  // The alignment that readers see must be the one the offsets were made with.
  const GgufValue alignment = GgufValue::U32(static_cast<std::uint32_t>(gguf.alignment));
  const bool add_alignment = gguf.alignment != kDefaultAlignment && gguf.Find(kAlignmentKey) == nullptr;

  Writer writer;
  for (const char c : {'G', 'G', 'U', 'F'}) writer.Raw(static_cast<std::uint8_t>(c), 1);
  writer.U32(kVersion);
  writer.U64(gguf.tensors.size());
  writer.U64(gguf.metadata.size() + (add_alignment ? 1 : 0));
  for (const auto& [key, value] : gguf.metadata) {
    writer.String(key);
    writer.Value(key == kAlignmentKey ? alignment : value);
  }
  if (add_alignment) {
    writer.String(kAlignmentKey);
    writer.Value(alignment);
  }
  for (const GgufTensor& tensor : gguf.tensors) {
    SHOAL_CHECK(!tensor.dims.empty() && tensor.dims.size() <= kDimsMax);
    writer.String(tensor.name);
    writer.U32(static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::uint64_t dim : tensor.dims) writer.U64(dim);
    writer.U32(tensor.type);
    writer.U64(tensor.offset);
  }
  writer.PadTo(gguf.alignment);
  return std::move(writer).Take();
}

std::uint64_t LayOutTensors(Gguf& gguf) {
  SHOAL_CHECK(std::has_single_bit(gguf.alignment));
  std::uint64_t end = 0;
  for (GgufTensor& tensor : gguf.tensors) {
    const auto type = GetTensorTypeInfo(tensor.type);
    SHOAL_CHECK(type.has_value());
    const auto bytes = TensorBytes(*type, tensor.dims);
    SHOAL_CHECK(bytes.has_value());
    tensor.bytes = *bytes;
    tensor.offset = end;
    SHOAL_CHECK(*bytes <= UINT64_MAX - end);
    const auto next = AlignUp(end + *bytes, gguf.alignment);
    SHOAL_CHECK(next.has_value());
    end = *next;
  }
  return end;
}

}  // namespace shoal
