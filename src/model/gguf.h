// GGUF files: a bounded reader of their metadata and tensor table, and a writer of headers. No tensor data.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian; version 2 is read too).
// Every count and length is checked against the bytes that are there before anything is allocated.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace shoal {

// Values of the format.
enum class GgufType : std::uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// An array, kept as its little-endian bytes (strings: as strings).
struct GgufArray {
  GgufType type = GgufType::kUint8;  // never kArray
  std::uint64_t count = 0;
  std::vector<std::uint8_t> bytes;   // count * size of type; empty for strings
  std::vector<std::string> strings;  // for kString
  bool operator==(const GgufArray&) const = default;
};

struct GgufValue {
  GgufType type = GgufType::kUint8;
  std::variant<std::uint64_t, std::int64_t, double, bool, std::string, GgufArray> value;
  bool operator==(const GgufValue&) const = default;

  static GgufValue U32(std::uint32_t v);
  static GgufValue F32(float v);
  static GgufValue Bool(bool v);
  static GgufValue String(std::string v);
  static GgufValue ArrayU32(std::span<const std::uint32_t> values);
  static GgufValue ArrayBool(const std::vector<bool>& values);

  // Any integer or bool that fits; empty otherwise.
  std::optional<std::int64_t> AsInt() const;
  // Any number.
  std::optional<double> AsDouble() const;
  const std::string* AsString() const;
  const GgufArray* AsArray() const;
};

// Integer element `index` of an integer or bool array. Errors as empty.
std::optional<std::int64_t> ArrayInt(const GgufArray& array, std::uint64_t index);
// Bytes of one element; 0 for strings and arrays.
std::size_t GgufTypeBytes(GgufType type);

// A tensor's element type: ggml's number, with the facts needed to know its size.
struct TensorTypeInfo {
  std::string_view name;         // "Q4_K"
  std::uint32_t block_elements;  // elements of one block
  std::uint32_t block_bytes;
};
// Empty for numbers that this version does not know.
std::optional<TensorTypeInfo> GetTensorTypeInfo(std::uint32_t ggml_type);

struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // fastest first, 1 to 4
  std::uint32_t type = 0;           // ggml_type
  std::uint64_t offset = 0;         // from the start of the data section
  std::uint64_t bytes = 0;          // computed from type and dims
  bool operator==(const GgufTensor&) const = default;
};

struct Gguf {
  // In file order. Keys are unique.
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<GgufTensor> tensors;  // names are unique
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;  // where the data section starts in the file
  std::uint64_t file_bytes = 0;

  const GgufValue* Find(std::string_view key) const;
  const GgufTensor* FindTensor(std::string_view name) const;
  void Set(std::string key, GgufValue value);  // replaces or appends
  void Remove(std::string_view key);
};

inline constexpr std::uint64_t kGgufHeaderBytesMax = 512ULL << 20;
inline constexpr std::uint64_t kGgufTensorsMax = 1U << 20;
inline constexpr std::uint64_t kGgufKeysMax = 1U << 16;
inline constexpr std::uint64_t kGgufNameBytesMax = 65535;

// Parses a header from the first bytes of a file.
//   bytes       at least the whole header (more is fine)
//   file_bytes  size of the whole file: every tensor must lie inside it
// Errors: kCorrupt (what and at which byte), kUnsupported (version, big-endian, unknown tensor type).
Result<Gguf> ParseGguf(std::span<const std::uint8_t> bytes, std::uint64_t file_bytes);

// Opens a file, reads and parses its header (mapped, not copied). Errors: kNotFound, kIo, kCorrupt, kUnsupported.
Result<Gguf> ReadGguf(const std::string& path);

// The header's bytes for `gguf` (version 3), padded to its alignment: data follows at once. Uses the tensors' offsets
// as they stand; LayOutTensors sets them.
std::vector<std::uint8_t> SerializeGguf(const Gguf& gguf);
// Sets bytes and consecutive aligned offsets of all tensors; returns the bytes of the data section.
std::uint64_t LayOutTensors(Gguf& gguf);

}  // namespace shoal
