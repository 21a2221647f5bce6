// Reads GGUF headers from untrusted bytes. See gguf.h for the format and its limits.
//
// The layout rules are the ones that llama.cpp's reader enforces (unique names shorter than 64 bytes, tensors back to
// back in file order, alignment a power of two), so that what passes here also loads there.
#include "model/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <unordered_set>

#include "base/units.h"
#include "model/gguf_internal.h"

namespace shoal {
namespace {

using namespace gguf_internal;

constexpr std::uint64_t kTensorNameBytesMax = 63;    // ggml's GGML_MAX_NAME, without its zero
constexpr std::uint64_t kStringsMax = 1ULL << 23;    // strings of all arrays of a file
constexpr std::uint64_t kAlignmentMax = 1ULL << 20;  // a header is padded to it when written
constexpr std::uint64_t kTensorEntryBytesMin = 8 + 4 + 4 + 8;
constexpr std::uint64_t kKeyEntryBytesMin = 8 + 4 + 1;

// A name from the file, fit to be printed.
std::string Quoted(std::string_view name) {
  std::string text = "'";
  for (const char c : name.substr(0, 80)) text += (c >= ' ' && c <= '~') ? c : '?';
  if (name.size() > 80) text += "...";
  return text + "'";
}

class Parser {
 public:
  Parser(std::span<const std::uint8_t> bytes, std::uint64_t file_bytes) : bytes_(bytes) {
    gguf_.file_bytes = file_bytes;
  }

  Result<Gguf> Parse() {
    SHOAL_RETURN_IF_ERROR(ParseCounts());
    SHOAL_RETURN_IF_ERROR(ParseMetadata());
    SHOAL_RETURN_IF_ERROR(TakeAlignment());
    SHOAL_RETURN_IF_ERROR(ParseTensors());
    SHOAL_RETURN_IF_ERROR(CheckLayout());
    return std::move(gguf_);
  }

 private:
  std::uint64_t Left() const { return bytes_.size() - at_; }

  bool Take(std::uint64_t n, std::span<const std::uint8_t>& out) {
    if (n > Left()) return false;
    out = bytes_.subspan(at_, n);
    at_ += n;
    return true;
  }
  bool TakeRaw(std::size_t n, std::uint64_t& v) {
    std::span<const std::uint8_t> raw;
    if (!Take(n, raw)) return false;
    v = 0;
    for (std::size_t i = 0; i < n; ++i) v |= std::uint64_t{raw[i]} << (8 * i);
    return true;
  }
  bool TakeU32(std::uint32_t& v) {
    std::uint64_t wide = 0;
    if (!TakeRaw(4, wide)) return false;
    v = static_cast<std::uint32_t>(wide);
    return true;
  }
  bool TakeU64(std::uint64_t& v) { return TakeRaw(8, v); }
  bool TakeString(std::string_view& s) {
    std::uint64_t n = 0;
    std::span<const std::uint8_t> raw;
    if (!TakeU64(n) || !Take(n, raw)) return false;
    s = {reinterpret_cast<const char*>(raw.data()), raw.size()};
    return true;
  }

  Error Corrupt(const std::string& what) const {
    return {ErrorCode::kCorrupt, "damaged GGUF header at byte " + std::to_string(at_) + ": " + what};
  }
  // The next field wants more bytes than there are.
  Error Short(const std::string& where) const {
    return Corrupt("the file ends inside " + where + "; it is damaged, or its download is incomplete");
  }

  Status ParseCounts();
  Status ParseMetadata();
  Result<GgufValue> ParseValue(const std::string& where);
  Result<GgufArray> ParseArray(const std::string& where);
  Status TakeAlignment();
  Status ParseTensors();
  Result<GgufTensor> ParseTensor(const std::string& where);
  Status CheckLayout();

  std::span<const std::uint8_t> bytes_;
  std::uint64_t at_ = 0;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t key_count_ = 0;
  std::uint64_t string_count_ = 0;
  Gguf gguf_;
};

Status Parser::ParseCounts() {
  std::span<const std::uint8_t> magic;
  if (bytes_.empty()) return Error{ErrorCode::kCorrupt, "not a GGUF file: it is empty"};
  if (!Take(4, magic) || std::memcmp(magic.data(), "GGUF", 4) != 0) {
    return Error{ErrorCode::kCorrupt, "not a GGUF file: it does not start with 'GGUF'"};
  }
  std::uint32_t version = 0;
  if (!TakeU32(version)) return Short("the version");
  if (version != 0 && (version & 0xFFFFU) == 0) {
    return Error{ErrorCode::kUnsupported, "this GGUF file is big-endian; only little-endian files can be read"};
  }
  if (version != 2 && version != kVersion) {
    return Error{ErrorCode::kUnsupported,
                 "GGUF version " + std::to_string(version) + "; this program reads versions 2 and 3"};
  }
  if (!TakeU64(tensor_count_) || !TakeU64(key_count_)) return Short("the counts");
  if (tensor_count_ > kGgufTensorsMax) return Corrupt(std::to_string(tensor_count_) + " tensors");
  if (key_count_ > kGgufKeysMax) return Corrupt(std::to_string(key_count_) + " metadata keys");
  if (tensor_count_ * kTensorEntryBytesMin + key_count_ * kKeyEntryBytesMin > Left()) {
    return Short("the tables of " + std::to_string(key_count_) + " metadata keys and " + std::to_string(tensor_count_) +
                 " tensors");
  }
  return {};
}

Status Parser::ParseMetadata() {
  std::unordered_set<std::string_view> seen;
  gguf_.metadata.reserve(key_count_);
  for (std::uint64_t i = 0; i < key_count_; ++i) {
    std::string_view key;
    if (!TakeString(key)) return Short("the name of metadata key " + std::to_string(i));
    if (key.empty()) return Corrupt("metadata key " + std::to_string(i) + " has no name");
    if (key.size() > kGgufNameBytesMax)
      return Corrupt("the name of metadata key " + std::to_string(i) + " is too long");
    if (!seen.insert(key).second) return Corrupt("metadata key " + Quoted(key) + " appears twice");
    SHOAL_ASSIGN_OR_RETURN(GgufValue value, ParseValue("metadata key " + Quoted(key)));
    gguf_.metadata.emplace_back(std::string(key), std::move(value));
  }
  return {};
}

Result<GgufValue> Parser::ParseValue(const std::string& where) {
  std::uint32_t number = 0;
  if (!TakeU32(number)) return Short(where);
  const auto type = static_cast<GgufType>(number);
  if (type == GgufType::kArray) {
    SHOAL_ASSIGN_OR_RETURN(GgufArray array, ParseArray(where));
    return GgufValue{type, std::move(array)};
  }
  if (type == GgufType::kString) {
    std::string_view s;
    if (!TakeString(s)) return Short(where);
    return GgufValue{type, std::string(s)};
  }
  const std::size_t width = GgufTypeBytes(type);
  if (width == 0) return Corrupt(where + " has the unknown type " + std::to_string(number));
  std::uint64_t raw = 0;
  if (!TakeRaw(width, raw)) return Short(where);
  switch (type) {
    case GgufType::kBool: return GgufValue{type, raw != 0};
    case GgufType::kInt8: return GgufValue{type, std::int64_t{static_cast<std::int8_t>(raw)}};
    case GgufType::kInt16: return GgufValue{type, std::int64_t{static_cast<std::int16_t>(raw)}};
    case GgufType::kInt32: return GgufValue{type, std::int64_t{static_cast<std::int32_t>(raw)}};
    case GgufType::kInt64: return GgufValue{type, static_cast<std::int64_t>(raw)};
    case GgufType::kFloat32:
      return GgufValue{type, static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(raw)))};
    case GgufType::kFloat64: return GgufValue{type, std::bit_cast<double>(raw)};
    default: return GgufValue{type, raw};
  }
}

Result<GgufArray> Parser::ParseArray(const std::string& where) {
  GgufArray array;
  std::uint32_t number = 0;
  if (!TakeU32(number) || !TakeU64(array.count)) return Short(where);
  array.type = static_cast<GgufType>(number);
  if (array.type == GgufType::kString) {
    if (array.count > Left() / 8) return Short(where + ", an array of " + std::to_string(array.count) + " strings");
    if (array.count > kStringsMax - string_count_) return Corrupt(where + " has too many strings");
    string_count_ += array.count;
    array.strings.reserve(array.count);
    for (std::uint64_t i = 0; i < array.count; ++i) {
      std::string_view s;
      if (!TakeString(s)) return Short(where + ", string " + std::to_string(i));
      array.strings.emplace_back(s);
    }
    return array;
  }
  const std::size_t width = GgufTypeBytes(array.type);
  if (width == 0) return Corrupt(where + " is an array of the unknown type " + std::to_string(number));
  std::span<const std::uint8_t> raw;
  if (array.count > Left() / width || !Take(array.count * width, raw)) {
    return Short(where + ", an array of " + std::to_string(array.count) + " elements");
  }
  array.bytes.assign(raw.begin(), raw.end());
  return array;
}

Status Parser::TakeAlignment() {
  gguf_.alignment = kDefaultAlignment;
  const GgufValue* value = gguf_.Find(kAlignmentKey);
  if (value == nullptr) return {};
  if (value->type != GgufType::kUint32) return Corrupt("general.alignment is not a 32-bit unsigned number");
  gguf_.alignment = std::get<std::uint64_t>(value->value);
  if (!std::has_single_bit(gguf_.alignment)) {
    return Corrupt("the alignment " + std::to_string(gguf_.alignment) + " is not a power of two");
  }
  if (gguf_.alignment > kAlignmentMax)
    return Corrupt("the alignment " + std::to_string(gguf_.alignment) + " is absurd");
  return {};
}

Status Parser::ParseTensors() {
  std::unordered_set<std::string> seen;
  gguf_.tensors.reserve(tensor_count_);
  for (std::uint64_t i = 0; i < tensor_count_; ++i) {
    SHOAL_ASSIGN_OR_RETURN(GgufTensor tensor, ParseTensor("the entry of tensor " + std::to_string(i)));
    if (!seen.insert(tensor.name).second) return Corrupt("tensor " + Quoted(tensor.name) + " appears twice");
    gguf_.tensors.push_back(std::move(tensor));
  }
  return {};
}

Result<GgufTensor> Parser::ParseTensor(const std::string& where) {
  GgufTensor tensor;
  std::string_view name;
  std::uint32_t dim_count = 0;
  if (!TakeString(name)) return Short(where);
  if (name.size() > kTensorNameBytesMax) return Corrupt("the name in " + where + " is too long");
  tensor.name = name;
  if (!TakeU32(dim_count)) return Short(where);
  if (dim_count > kDimsMax)
    return Corrupt("tensor " + Quoted(name) + " has " + std::to_string(dim_count) + " dimensions");
  for (std::uint32_t i = 0; i < dim_count; ++i) {
    std::uint64_t dim = 0;
    if (!TakeU64(dim)) return Short(where);
    tensor.dims.push_back(dim);
  }
  if (tensor.dims.empty()) tensor.dims.push_back(1);  // a scalar
  if (!TakeU32(tensor.type) || !TakeU64(tensor.offset)) return Short(where);

  const auto type = GetTensorTypeInfo(tensor.type);
  if (!type) {
    return Error{ErrorCode::kUnsupported, "tensor " + Quoted(name) + " has type number " + std::to_string(tensor.type) +
                                              ", which this program does not know"};
  }
  const auto bytes = TensorBytes(*type, tensor.dims);
  if (!bytes) {
    std::string shape;
    for (const std::uint64_t dim : tensor.dims) shape += (shape.empty() ? "" : " x ") + std::to_string(dim);
    return Corrupt("tensor " + Quoted(name) + " of type " + std::string(type->name) + " has the impossible shape " +
                   shape);
  }
  tensor.bytes = *bytes;
  return tensor;
}

Status Parser::CheckLayout() {
  gguf_.data_offset = at_;
  if (gguf_.tensors.empty()) return {};
  // at_ is at most kGgufHeaderBytesMax and the alignment at most kAlignmentMax: no overflow.
  gguf_.data_offset = *AlignUp(at_, gguf_.alignment);

  const GgufTensor* first_missing = nullptr;
  std::uint64_t end = gguf_.data_offset;  // of the last tensor, without padding
  std::uint64_t next = 0;                 // where the next tensor has to start in the data section
  for (const GgufTensor& tensor : gguf_.tensors) {
    if (tensor.offset != next) {
      return Corrupt("tensor " + Quoted(tensor.name) + " is at " + std::to_string(tensor.offset) +
                     " of the data, expected at " + std::to_string(next));
    }
    const std::uint64_t room = INT64_MAX - gguf_.data_offset - next;
    if (tensor.bytes > room) return Corrupt("the sizes of the tensors overflow at " + Quoted(tensor.name));
    end = gguf_.data_offset + next + tensor.bytes;
    if (first_missing == nullptr && end > gguf_.file_bytes) first_missing = &tensor;
    next = *AlignUp(next + tensor.bytes, gguf_.alignment);
    if (next > INT64_MAX - gguf_.data_offset) return Corrupt("the sizes of the tensors overflow");
  }
  if (first_missing == nullptr) return {};
  return Error{ErrorCode::kCorrupt, "the file is truncated: it has " + FormatBytes(gguf_.file_bytes) + " of " +
                                        FormatBytes(end) + ", " + std::to_string(end - gguf_.file_bytes) +
                                        " bytes are missing from tensor " + Quoted(first_missing->name) +
                                        " on; the download is incomplete"};
}

// A read-only view of the start of a file.
class Mapping {
 public:
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  // False with errno set if the system refuses.
  bool Map(int fd, std::size_t size) {
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) return false;
    data_ = data;
    size_ = size;
    return true;
  }
  std::span<const std::uint8_t> bytes() const { return {static_cast<const std::uint8_t*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Error SystemError(const std::string& what, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  return {absent ? ErrorCode::kNotFound : ErrorCode::kIo, what + ": " + std::strerror(error)};
}

}  // namespace

Result<Gguf> ParseGguf(std::span<const std::uint8_t> bytes, std::uint64_t file_bytes) {
  const std::uint64_t limit = std::min(file_bytes, kGgufHeaderBytesMax);
  return Parser(bytes.first(std::min<std::uint64_t>(bytes.size(), limit)), file_bytes).Parse();
}

Result<Gguf> ReadGguf(const std::string& path) {
  // O_NONBLOCK: a FIFO in the file's place must not hang the open.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return SystemError("cannot open " + path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return SystemError("cannot read " + path, errno);
  if (S_ISDIR(status.st_mode)) return Error{ErrorCode::kNotFound, path + " is a folder, not a model file"};
  if (!S_ISREG(status.st_mode)) return Error{ErrorCode::kUnsupported, path + " is not a regular file"};

  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  if (file_bytes == 0) return Error{ErrorCode::kCorrupt, path + ": not a GGUF file: it is empty"};
  Mapping mapping;
  if (!mapping.Map(file.get(), static_cast<std::size_t>(std::min(file_bytes, kGgufHeaderBytesMax)))) {
    return SystemError("cannot map " + path, errno);
  }
  Result<Gguf> gguf = ParseGguf(mapping.bytes(), file_bytes);
  if (!gguf.ok()) return Error{gguf.error().code, path + ": " + gguf.error().message};
  return gguf;
}

}  // namespace shoal
