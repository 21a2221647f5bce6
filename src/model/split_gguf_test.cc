// Models in parts: what joining them gives is the file they were cut from; parts that do not belong together are
// refused.
#include "model/split_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/test_folder.h"
#include "model/model_info.h"
#include "model/test_parts.h"

namespace shoal {
namespace {

using testing::HasSubstr;

TEST(SplitName, IsReadAndWritten) {
  const auto name = ParseSplitName("/a/Big-Q4_K_M-00002-of-00013.gguf");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->stem, "/a/Big-Q4_K_M");
  EXPECT_EQ(name->part, 2);
  EXPECT_EQ(name->parts, 13);
  EXPECT_EQ(PartName(*name, 13), "/a/Big-Q4_K_M-00013-of-00013.gguf");
  EXPECT_TRUE(ParseSplitName("x-00001-of-00001.gguf").has_value());
  for (const char* none : {"", "x.gguf", "-00001-of-00002.gguf", "x-00000-of-00002.gguf", "x-00003-of-00002.gguf",
                           "x-0001-of-0002.gguf", "x-00001-of-00002.bin", "x-0000a-of-00002.gguf",
                           "x-00001-of-99999.gguf", "x-00001_of_00002.gguf", "x00001-of-00002.gguf"}) {
    EXPECT_FALSE(ParseSplitName(none).has_value()) << none;
  }
}

class SplitModel : public testing::Test {
 protected:
  void SetUp() override {
    Gguf gguf;
    gguf.Set("general.architecture", GgufValue::String("llama"));
    gguf.Set("general.name", GgufValue::String("small"));
    gguf.Set("llama.block_count", GgufValue::U32(3));
    gguf.Set("llama.embedding_length", GgufValue::U32(64));
    gguf.Set("llama.attention.head_count", GgufValue::U32(4));
    gguf.Set("llama.context_length", GgufValue::U32(128));
    gguf.Set("tokenizer.ggml.token_type", GgufValue::ArrayU32(std::vector<std::uint32_t>(50, 1)));
    gguf.tensors.push_back({"token_embd.weight", {64, 50}, 0});
    for (int i = 0; i < 3; ++i) {
      gguf.tensors.push_back({"blk." + std::to_string(i) + ".attn_norm.weight", {3}, 0});  // with padding behind it
      gguf.tensors.push_back({"blk." + std::to_string(i) + ".ffn_up.weight", {64, 7}, 0});
    }
    gguf.tensors.push_back({"output_norm.weight", {3}, 0});
    const std::uint64_t data_bytes = LayOutTensors(gguf);
    whole_ = SerializeGguf(gguf);
    for (std::uint64_t i = 0; i < data_bytes; ++i) {
      // Padding is zeros, as every writer has it.
      bool padding = true;
      for (const GgufTensor& tensor : gguf.tensors) padding = padding && (i - tensor.offset >= tensor.bytes);
      whole_.push_back(padding ? 0 : static_cast<std::uint8_t>(i % 251 + 1));
    }
    path_ = folder_ + "/model.gguf";
    WriteBytes(path_, whole_);
  }

  static void WriteBytes(const std::string& path, const std::vector<std::uint8_t>& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  std::string Part(int i, int parts = 3) const { return PartName({folder_ + "/cut", 1, parts}, i); }

  std::string OpenError(const std::string& path, ErrorCode code) {
    const auto file = OpenModelFile(path);
    if (file.ok()) return "it opens";
    EXPECT_EQ(file.error().code, code) << file.error().message;
    return file.error().message;
  }

  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
  std::string path_;
  std::vector<std::uint8_t> whole_;
};

TEST_F(SplitModel, JoinedIsTheFileItWasCutFrom) {
  for (const std::vector<std::size_t>& cut : {std::vector<std::size_t>{3, 3, 2}, {0, 1, 7}, {8, 0, 0}}) {
    CutTestModel(path_, folder_ + "/cut", cut);
    for (int named = 1; named <= 3; ++named) {
      const auto file = OpenModelFile(Part(named));
      ASSERT_TRUE(file.ok()) << file.error().message;
      EXPECT_EQ((*file)->path, Part(1));
      EXPECT_EQ((*file)->info.file_bytes, whole_.size());
      const auto reader = (*file)->source->Open();
      ASSERT_TRUE(reader.ok());
      for (const std::uint64_t step : {std::uint64_t{1} << 20, std::uint64_t{7}}) {
        std::vector<std::uint8_t> bytes(whole_.size());
        for (std::uint64_t at = 0; at < bytes.size(); at += step) {
          ASSERT_TRUE((*reader)->Read(at, {bytes.data() + at, std::min(step, bytes.size() - at)}).ok());
          ASSERT_FALSE((*reader)->Waits(at)) << "it was just read";
        }
        EXPECT_EQ(bytes, whole_);
      }
      std::uint8_t beyond = 0;
      EXPECT_EQ((*reader)->Read(whole_.size(), {&beyond, 1}).error().code, ErrorCode::kIo);
    }
  }
}

TEST_F(SplitModel, APartThatIsMissingIsNamed) {
  CutTestModel(path_, folder_ + "/cut", {3, 3, 2});
  std::filesystem::remove(Part(2));
  const std::string said = OpenError(Part(1), ErrorCode::kNotFound);
  EXPECT_THAT(said, HasSubstr("part 2 of 3"));
  EXPECT_THAT(said, HasSubstr(Part(2)));
}

TEST_F(SplitModel, APartOfAnotherPlaceOrModelIsRefused) {
  CutTestModel(path_, folder_ + "/cut", {3, 3, 2});
  std::filesystem::copy_file(Part(3), Part(2), std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(OpenError(Part(1), ErrorCode::kCorrupt), HasSubstr("says that it is part 3 of 3, where part 2 of 3"));

  CutTestModel(path_, folder_ + "/cut", {3, 3, 2});
  CutTestModel(path_, folder_ + "/other", {2, 4, 2});
  std::filesystem::copy_file(PartName({folder_ + "/other", 1, 3}, 2), Part(2),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(OpenError(Part(1), ErrorCode::kCorrupt), HasSubstr("another part has too"));
}

TEST_F(SplitModel, AFileWithAPartsNameThatIsNoneIsRefused) {
  std::filesystem::copy_file(path_, Part(1, 2));
  std::filesystem::copy_file(path_, Part(2, 2));
  EXPECT_THAT(OpenError(Part(1, 2), ErrorCode::kCorrupt), HasSubstr("says that it is part ? of ?"));
  CutTestModel(path_, folder_ + "/cut", {3, 3, 2});
  std::filesystem::rename(Part(1), folder_ + "/alone.gguf");
  EXPECT_THAT(OpenError(folder_ + "/alone.gguf", ErrorCode::kUnsupported), HasSubstr("one of 3 parts"));
}

TEST_F(SplitModel, APartThatChangedIsAnError) {
  CutTestModel(path_, folder_ + "/cut", {3, 3, 2});
  const auto file = OpenModelFile(Part(1));
  ASSERT_TRUE(file.ok());
  std::ofstream(Part(2), std::ios::app) << "more";
  const auto reader = (*file)->source->Open();
  ASSERT_TRUE(reader.ok());
  std::vector<std::uint8_t> bytes(whole_.size());
  const Status read = (*reader)->Read(0, bytes);
  ASSERT_FALSE(read.ok());
  EXPECT_THAT(read.error().message, HasSubstr("changed"));
}

}  // namespace
}  // namespace shoal
