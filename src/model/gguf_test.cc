// GGUF headers: what is written reads back; what is cut, corrupted or absurd is an error and allocates little.
#include "model/gguf.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <new>

#include "base/test_folder.h"

namespace {

// The largest single allocation since it was last set to 0.
thread_local std::size_t largest_allocation_bytes = 0;

void* Allocate(std::size_t n) {
  if (n > largest_allocation_bytes) largest_allocation_bytes = n;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t n) { return Allocate(n); }
void* operator new[](std::size_t n) { return Allocate(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Writes raw fields, for files that SerializeGguf would not make.
class RawFile {
 public:
  RawFile& U8(std::uint8_t v) {
    bytes_.push_back(v);
    return *this;
  }
  RawFile& U32(std::uint32_t v) {
    for (int i = 0; i < 4; ++i) U8(static_cast<std::uint8_t>(v >> (8 * i)));
    return *this;
  }
  RawFile& U64(std::uint64_t v) {
    for (int i = 0; i < 8; ++i) U8(static_cast<std::uint8_t>(v >> (8 * i)));
    return *this;
  }
  RawFile& Text(std::string_view s) {
    bytes_.insert(bytes_.end(), s.begin(), s.end());
    return *this;
  }
  RawFile& String(std::string_view s) { return U64(s.size()).Text(s); }
  RawFile& Start(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return Text("GGUF").U32(version).U64(tensors).U64(keys);
  }
  RawFile& Key(std::string_view name, GgufType type) { return String(name).U32(static_cast<std::uint32_t>(type)); }
  RawFile& Tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset) {
    String(name).U32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t d : dims) U64(d);
    return U32(type).U64(offset);
  }
  RawFile& Zeros(std::size_t n) {
    bytes_.resize(bytes_.size() + n);
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }
  Result<Gguf> Parse() const { return ParseGguf(bytes_, bytes_.size()); }
  Result<Gguf> ParseAsHuge() const { return ParseGguf(bytes_, std::uint64_t{1} << 62); }

 private:
  Bytes bytes_;
};

template <typename T>
void ExpectError(const Result<T>& result, ErrorCode code, std::string_view part) {
  ASSERT_FALSE(result.ok()) << "expected: " << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message << "\nlacks: " << part;
}

GgufArray StringArray(std::vector<std::string> strings) {
  GgufArray array;
  array.type = GgufType::kString;
  array.count = strings.size();
  array.strings = std::move(strings);
  return array;
}

GgufArray BytesArray(GgufType type, Bytes bytes) {
  GgufArray array;
  array.type = type;
  array.count = bytes.size() / GgufTypeBytes(type);
  array.bytes = std::move(bytes);
  return array;
}

// Every value type, both kinds of array, plain and quantized tensors.
Gguf Sample() {
  Gguf gguf;
  gguf.Set("general.architecture", GgufValue::String("llama"));
  gguf.Set("a.u8", {GgufType::kUint8, std::uint64_t{200}});
  gguf.Set("a.i8", {GgufType::kInt8, std::int64_t{-100}});
  gguf.Set("a.u16", {GgufType::kUint16, std::uint64_t{60000}});
  gguf.Set("a.i16", {GgufType::kInt16, std::int64_t{-30000}});
  gguf.Set("a.u32", GgufValue::U32(4000000000U));
  gguf.Set("a.i32", {GgufType::kInt32, std::int64_t{-2000000000}});
  gguf.Set("a.u64", {GgufType::kUint64, UINT64_MAX});
  gguf.Set("a.i64", {GgufType::kInt64, std::int64_t{INT64_MIN}});
  gguf.Set("a.f32", GgufValue::F32(1.5F));
  gguf.Set("a.f64", {GgufType::kFloat64, 0.1});
  gguf.Set("a.bool", GgufValue::Bool(true));
  const std::vector<std::uint32_t> numbers = {1, 2, 0xFFFFFFFF};
  gguf.Set("b.u32", GgufValue::ArrayU32(numbers));
  gguf.Set("b.bool", GgufValue::ArrayBool({true, false, true}));
  gguf.Set("b.strings", {GgufType::kArray, StringArray({"", "x", std::string("with\0zero", 9)})});
  gguf.Set("b.empty", {GgufType::kArray, StringArray({})});
  gguf.tensors = {
      {"token_embd.weight", {32, 3}, 0}, {"blk.0.ffn.weight", {256, 2}, 12}, {"one", {1}, 30}, {"last", {5}, 0}};
  LayOutTensors(gguf);
  return gguf;
}

Bytes WithData(const Gguf& gguf, std::uint64_t data_bytes) {
  Bytes file = SerializeGguf(gguf);
  file.resize(file.size() + data_bytes);
  return file;
}

TEST(Gguf, LayOutIsConsecutiveAndAligned) {
  Gguf gguf = Sample();
  EXPECT_EQ(LayOutTensors(gguf), 384U + 288U + 32U + 32U);
  EXPECT_EQ(gguf.tensors[0].bytes, 32U * 3 * 4);
  EXPECT_EQ(gguf.tensors[1].offset, 384U);
  EXPECT_EQ(gguf.tensors[1].bytes, 2U * 144);
  EXPECT_EQ(gguf.tensors[2].offset, 384U + 288);
  EXPECT_EQ(gguf.tensors[2].bytes, 2U);
  EXPECT_EQ(gguf.tensors[3].offset, 384U + 288 + 32);
  EXPECT_EQ(gguf.tensors[3].bytes, 20U);
}

TEST(Gguf, RoundTripsEveryType) {
  Gguf gguf = Sample();
  const Bytes file = WithData(gguf, LayOutTensors(gguf));
  const auto parsed = ParseGguf(file, file.size());
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->metadata, gguf.metadata);
  EXPECT_EQ(parsed->tensors, gguf.tensors);
  EXPECT_EQ(parsed->alignment, 32U);
  EXPECT_EQ(parsed->file_bytes, file.size());
  EXPECT_EQ(parsed->data_offset, SerializeGguf(gguf).size());
  EXPECT_EQ(SerializeGguf(*parsed), SerializeGguf(gguf));
}

TEST(Gguf, WritesTheDocumentedBytes) {
  Gguf gguf;
  gguf.Set("k", GgufValue::U32(7));
  gguf.tensors = {{"t", {2, 3}, 1}};
  LayOutTensors(gguf);
  RawFile expected;
  expected.Start(1, 1).Key("k", GgufType::kUint32).U32(7).Tensor("t", {2, 3}, 1, 0);
  Bytes bytes = expected.bytes();
  bytes.resize((bytes.size() + 31) / 32 * 32);
  EXPECT_EQ(SerializeGguf(gguf), bytes);
}

TEST(Gguf, VersionTwoReads) {
  RawFile file;
  file.Start(0, 1, 2).Key("k", GgufType::kBool).U8(1);
  const auto parsed = file.Parse();
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->Find("k")->AsInt(), 1);
}

TEST(Gguf, OtherAlignmentsRoundTrip) {
  for (const std::uint64_t alignment : {1U, 8U, 64U, 4096U}) {
    Gguf gguf = Sample();
    gguf.alignment = alignment;
    const std::uint64_t data = LayOutTensors(gguf);
    const Bytes file = WithData(gguf, data);
    const auto parsed = ParseGguf(file, file.size());
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed->alignment, alignment);
    EXPECT_EQ(parsed->data_offset % alignment, 0U);
    EXPECT_EQ(parsed->tensors, gguf.tensors);
    EXPECT_EQ(parsed->Find("general.alignment")->AsInt(), static_cast<std::int64_t>(alignment));
  }
}

TEST(Gguf, TheLastTensorNeedsNoPadding) {
  Gguf gguf = Sample();
  const Bytes file = WithData(gguf, LayOutTensors(gguf) - 12);
  EXPECT_TRUE(ParseGguf(file, file.size()).ok());
}

TEST(Gguf, ReadsScalarTensors) {
  RawFile file;
  file.Start(1, 0).Tensor("scalar", {}, 0, 0).Zeros(64);
  const auto parsed = file.Parse();
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->tensors[0].dims, (std::vector<std::uint64_t>{1}));
  EXPECT_EQ(parsed->tensors[0].bytes, 4U);
}

TEST(Gguf, EveryTruncationIsAnError) {
  Gguf gguf = Sample();
  const Bytes file = WithData(gguf, LayOutTensors(gguf) - 12);
  for (std::size_t n = 0; n < file.size(); ++n) {
    const auto parsed = ParseGguf(std::span(file).first(n), n);
    ASSERT_FALSE(parsed.ok()) << "with " << n << " bytes";
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
  }
  // Only the header at hand, of a file that has the rest.
  const std::size_t header = SerializeGguf(gguf).size();
  EXPECT_TRUE(ParseGguf(std::span(file).first(header), file.size()).ok());
}

TEST(Gguf, EverySingleByteCorruptionIsHarmless) {
  Gguf gguf = Sample();
  const Bytes good = WithData(gguf, LayOutTensors(gguf));
  const std::size_t header = SerializeGguf(gguf).size();
  int accepted = 0;
  for (std::size_t at = 0; at < header; ++at) {
    for (int change = 1; change < 256; ++change) {
      Bytes bad = good;
      bad[at] = static_cast<std::uint8_t>(bad[at] ^ change);
      largest_allocation_bytes = 0;
      const auto parsed = ParseGguf(bad, bad.size());
      ASSERT_LE(largest_allocation_bytes, 16 * good.size()) << "byte " << at << " changed by " << change;
      if (parsed.ok()) ++accepted;
    }
  }
  EXPECT_GT(accepted, 0);  // values and names may hold anything
}

TEST(Gguf, TruncationNamesTheTensorAndTheMissingBytes) {
  Gguf gguf = Sample();
  LayOutTensors(gguf);
  const Bytes header = SerializeGguf(gguf);
  const std::uint64_t file_bytes = header.size() + 384 + 100;
  const auto parsed = ParseGguf(header, file_bytes);
  ExpectError(parsed, ErrorCode::kCorrupt, "'blk.0.ffn.weight'");
  ExpectError(parsed, ErrorCode::kCorrupt, "download is incomplete");
  // 384 + 288 + 32 + 20 bytes are needed.
  ExpectError(parsed, ErrorCode::kCorrupt, " 240 bytes are missing");
}

TEST(Gguf, RefusesWhatIsNotGguf) {
  ExpectError(ParseGguf({}, 0), ErrorCode::kCorrupt, "empty");
  ExpectError(RawFile().Text("GG").Parse(), ErrorCode::kCorrupt, "not a GGUF file");
  ExpectError(RawFile().Text("PK\x03\x04 something else").Parse(), ErrorCode::kCorrupt, "not a GGUF file");
  ExpectError(RawFile().Text("<html>404").Parse(), ErrorCode::kCorrupt, "not a GGUF file");
}

TEST(Gguf, RefusesOtherVersionsAndByteOrders) {
  ExpectError(RawFile().Start(0, 0, 0).Parse(), ErrorCode::kUnsupported, "version 0");
  ExpectError(RawFile().Start(0, 0, 1).Parse(), ErrorCode::kUnsupported, "version 1");
  ExpectError(RawFile().Start(0, 0, 4).Parse(), ErrorCode::kUnsupported, "version 4");
  ExpectError(RawFile().Start(0, 0, 0x03000000).Parse(), ErrorCode::kUnsupported, "big-endian");
}

TEST(Gguf, RefusesAbsurdCountsWithoutAllocating) {
  for (const std::uint64_t n : {std::uint64_t{1} << 63, UINT64_MAX, std::uint64_t{1} << 32, std::uint64_t{1000}}) {
    largest_allocation_bytes = 0;
    EXPECT_FALSE(RawFile().Start(n, 0).Zeros(100).Parse().ok()) << n;
    EXPECT_FALSE(RawFile().Start(0, n).Zeros(100).Parse().ok()) << n;
    EXPECT_FALSE(RawFile().Start(0, 1).U64(n).Zeros(100).Parse().ok()) << n;
    EXPECT_FALSE(RawFile().Start(0, 1).Key("k", GgufType::kString).U64(n).Zeros(100).Parse().ok()) << n;
    for (const GgufType type : {GgufType::kString, GgufType::kUint8, GgufType::kUint64, GgufType::kArray}) {
      RawFile file;
      file.Start(0, 1).Key("k", GgufType::kArray).U32(static_cast<std::uint32_t>(type)).U64(n).Zeros(100);
      ExpectError(file.Parse(), ErrorCode::kCorrupt, "'k'");
    }
    EXPECT_LE(largest_allocation_bytes, 4096U) << n;
  }
}

TEST(Gguf, RefusesUnknownValueTypesAndNestedArrays) {
  ExpectError(RawFile().Start(0, 1).Key("k", static_cast<GgufType>(13)).U64(0).Parse(), ErrorCode::kCorrupt,
              "unknown type 13");
  ExpectError(RawFile().Start(0, 1).Key("k", GgufType::kArray).U32(9).U64(0).Parse(), ErrorCode::kCorrupt, "type 9");
}

TEST(Gguf, RefusesDuplicateAndEmptyNames) {
  RawFile keys;
  keys.Start(0, 2).Key("k", GgufType::kUint8).U8(1).Key("k", GgufType::kUint8).U8(2);
  ExpectError(keys.Parse(), ErrorCode::kCorrupt, "'k' appears twice");
  RawFile tensors;
  tensors.Start(2, 0).Tensor("t", {8}, 0, 0).Tensor("t", {8}, 0, 32).Zeros(200);
  ExpectError(tensors.Parse(), ErrorCode::kCorrupt, "'t' appears twice");
  ExpectError(RawFile().Start(0, 1).Key("", GgufType::kUint8).U8(1).Parse(), ErrorCode::kCorrupt, "no name");
  ExpectError(RawFile().Start(1, 0).Tensor(std::string(64, 'n'), {8}, 0, 0).Zeros(200).Parse(), ErrorCode::kCorrupt,
              "too long");
}

TEST(Gguf, RefusesBadAlignments) {
  const auto with = [](std::uint32_t alignment) {
    return RawFile().Start(0, 1).Key("general.alignment", GgufType::kUint32).U32(alignment).Parse();
  };
  ExpectError(with(0), ErrorCode::kCorrupt, "not a power of two");
  ExpectError(with(33), ErrorCode::kCorrupt, "not a power of two");
  ExpectError(with(0x80000000), ErrorCode::kCorrupt, "absurd");
  EXPECT_TRUE(with(16).ok());
  ExpectError(RawFile().Start(0, 1).Key("general.alignment", GgufType::kUint64).U64(32).Parse(), ErrorCode::kCorrupt,
              "32-bit");
}

TEST(Gguf, RefusesImpossibleShapes) {
  const auto with = [](std::vector<std::uint64_t> dims, std::uint32_t type) {
    return RawFile().Start(1, 0).Tensor("t", std::move(dims), type, 0).Zeros(64).ParseAsHuge();
  };
  const std::uint64_t big = std::uint64_t{1} << 32;
  ExpectError(with({big, big}, 0), ErrorCode::kCorrupt, "impossible shape");
  ExpectError(with({big, big / 2}, 0), ErrorCode::kCorrupt, "impossible shape");
  ExpectError(with({std::uint64_t{1} << 63}, 24), ErrorCode::kCorrupt, "impossible shape");
  ExpectError(with({UINT64_MAX, 0}, 24), ErrorCode::kCorrupt, "impossible shape");
  ExpectError(with({33}, 3), ErrorCode::kCorrupt, "impossible shape 33");
  ExpectError(with({1, 1, 1, 1, 1}, 0), ErrorCode::kCorrupt, "5 dimensions");
  ExpectError(with({32}, 4), ErrorCode::kUnsupported, "type number 4");
  ExpectError(with({32}, 999), ErrorCode::kUnsupported, "type number 999");
  EXPECT_TRUE(with({big, 0, 5}, 0).ok());
}

TEST(Gguf, RefusesOffsetsThatOverlapOrOverflow) {
  ExpectError(RawFile().Start(2, 0).Tensor("a", {8}, 0, 0).Tensor("b", {8}, 0, 0).Zeros(200).Parse(),
              ErrorCode::kCorrupt, "expected at 32");
  ExpectError(RawFile().Start(1, 0).Tensor("a", {8}, 0, UINT64_MAX - 31).Zeros(200).Parse(), ErrorCode::kCorrupt,
              "expected at 0");
  const std::uint64_t half = std::uint64_t{1} << 62;
  const auto parsed =
      RawFile().Start(2, 0).Tensor("a", {half}, 24, 0).Tensor("b", {half}, 24, half).Zeros(200).ParseAsHuge();
  ExpectError(parsed, ErrorCode::kCorrupt, "overflow at 'b'");
}

TEST(Gguf, ErrorsShowNoControlCharacters) {
  RawFile file;
  file.Start(0, 1).Key("a\x1b[31m\n", GgufType::kArray).U32(99).U64(0);
  const auto parsed = file.Parse();
  ExpectError(parsed, ErrorCode::kCorrupt, "'a?[31m?'");
}

TEST(Gguf, ValuesConvertOnlyWhereTheyFit) {
  const Gguf gguf = Sample();
  EXPECT_EQ(gguf.Find("a.u8")->AsInt(), 200);
  EXPECT_EQ(gguf.Find("a.i8")->AsInt(), -100);
  EXPECT_EQ(gguf.Find("a.u64")->AsInt(), std::nullopt);
  EXPECT_EQ(gguf.Find("a.i64")->AsInt(), INT64_MIN);
  EXPECT_EQ(gguf.Find("a.f32")->AsInt(), std::nullopt);
  EXPECT_EQ(gguf.Find("a.f32")->AsDouble(), 1.5);
  EXPECT_EQ(gguf.Find("a.i32")->AsDouble(), -2e9);
  EXPECT_EQ(gguf.Find("general.architecture")->AsDouble(), std::nullopt);
  EXPECT_EQ(*gguf.Find("general.architecture")->AsString(), "llama");
  EXPECT_EQ(gguf.Find("a.u8")->AsString(), nullptr);
  EXPECT_EQ(gguf.Find("nothing"), nullptr);
}

TEST(Gguf, ArrayElementsOfEveryWidth) {
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kInt8, {0xFF}), 0), -1);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kUint8, {0xFF}), 0), 255);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kInt16, {0, 0, 0xFE, 0xFF}), 1), -2);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kUint16, {0, 0, 0xFE, 0xFF}), 1), 0xFFFE);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kInt32, {0xFD, 0xFF, 0xFF, 0xFF}), 0), -3);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kInt64, Bytes(8, 0xFF)), 0), -1);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kUint64, Bytes(8, 0xFF)), 0), std::nullopt);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kBool, {0, 2}), 1), 1);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kBool, {0, 2}), 2), std::nullopt);
  EXPECT_EQ(ArrayInt(BytesArray(GgufType::kFloat32, Bytes(4)), 0), std::nullopt);
  EXPECT_EQ(ArrayInt(StringArray({"1"}), 0), std::nullopt);
}

TEST(Gguf, SetReplacesInPlaceAndRemoveForgets) {
  Gguf gguf;
  gguf.Set("a", GgufValue::U32(1));
  gguf.Set("b", GgufValue::U32(2));
  gguf.Set("a", GgufValue::U32(3));
  ASSERT_EQ(gguf.metadata.size(), 2U);
  EXPECT_EQ(gguf.metadata[0].first, "a");
  EXPECT_EQ(gguf.Find("a")->AsInt(), 3);
  gguf.Remove("a");
  EXPECT_EQ(gguf.Find("a"), nullptr);
  EXPECT_EQ(gguf.metadata.size(), 1U);
}

TEST(Gguf, BigStringArraysParseFast) {
  std::vector<std::string> tokens;
  for (int i = 0; i < 262144; ++i) tokens.push_back("token number " + std::to_string(i));
  Gguf gguf;
  gguf.Set("tokenizer.ggml.tokens", {GgufType::kArray, StringArray(std::move(tokens))});
  const Bytes file = SerializeGguf(gguf);
  const auto start = std::chrono::steady_clock::now();
  const auto parsed = ParseGguf(file, file.size());
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->Find("tokenizer.ggml.tokens")->AsArray()->strings[262143], "token number 262143");
  RecordProperty("elapsed_ms", std::to_string(elapsed.count()));
  EXPECT_LT(elapsed.count(), 2000);  // a few tens of ms; the limit is for sanitizers on a busy machine
}

class GgufFiles : public testing::Test {
 protected:
  std::string Write(const std::string& name, const Bytes& bytes) {
    return temporary_.Write(name, std::string(bytes.begin(), bytes.end()));
  }
  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(GgufFiles, ReadsAFile) {
  Gguf gguf = Sample();
  const auto read = ReadGguf(Write("good.gguf", WithData(gguf, LayOutTensors(gguf))));
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->metadata, gguf.metadata);
}

TEST_F(GgufFiles, SaysWhatIsWrongAndWhere) {
  ExpectError(ReadGguf(folder_ + "/absent.gguf"), ErrorCode::kNotFound, "absent.gguf");
  ExpectError(ReadGguf(Write("plain", {1}) + "/child"), ErrorCode::kNotFound, "plain/child");
  ExpectError(ReadGguf(folder_), ErrorCode::kNotFound, "is a folder");
  ExpectError(ReadGguf(Write("empty.gguf", {})), ErrorCode::kCorrupt, "empty.gguf: not a GGUF file: it is empty");
  ExpectError(ReadGguf(Write("text.gguf", {'h', 'e', 'l', 'l', 'o'})), ErrorCode::kCorrupt, "not a GGUF file");
  Gguf gguf = Sample();
  LayOutTensors(gguf);
  ExpectError(ReadGguf(Write("short.gguf", SerializeGguf(gguf))), ErrorCode::kCorrupt, "'token_embd.weight'");
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ExpectError(ReadGguf(fifo), ErrorCode::kUnsupported, "not a regular file");
}

TEST(TensorTypes, KnownSizes) {
  const auto q4_1 = GetTensorTypeInfo(3);
  ASSERT_TRUE(q4_1.has_value());
  EXPECT_EQ(q4_1->name, "Q4_1");
  EXPECT_EQ(q4_1->block_elements, 32U);
  EXPECT_EQ(q4_1->block_bytes, 20U);
  EXPECT_EQ(GetTensorTypeInfo(12)->block_bytes, 144U);
  EXPECT_EQ(GetTensorTypeInfo(30)->name, "BF16");
  int known = 0;
  for (std::uint32_t type = 0; type < 100; ++type) {
    const auto info = GetTensorTypeInfo(type);
    if (!info) continue;
    ++known;
    EXPECT_FALSE(info->name.empty());
    EXPECT_GT(info->block_elements, 0U);
    EXPECT_GT(info->block_bytes, 0U);
  }
  EXPECT_EQ(known, 35);  // 43 numbers, 8 of them retired
  for (const std::uint32_t retired : {4U, 5U, 31U, 32U, 33U, 36U, 37U, 38U, 43U}) {
    EXPECT_FALSE(GetTensorTypeInfo(retired).has_value()) << retired;
  }
}

}  // namespace
}  // namespace shoal
