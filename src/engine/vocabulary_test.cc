// The tokenizer over the real models: round trips of any bytes, special tokens, limits.
#include "engine/vocabulary.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/test_vocabularies.h"

namespace shoal {
namespace {

class VocabularyTest : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const Vocabulary> vocabulary_ = OpenTestVocabulary(GetParam());

  std::string Join(const std::vector<TokenId>& tokens, bool special = false) {
    std::string text;
    for (const TokenId token : tokens) text += vocabulary_->Piece(token, special);
    return text;
  }
};

TEST_P(VocabularyTest, TextSurvivesTheRoundTrip) {
  const std::string texts[] = {"Hello, world!",
                               "  two  spaces\n\n\ttab ",
                               "naïve café Straße",
                               "日本語のテキスト、中文，한국어",
                               "👩‍👩‍👧‍👦 family 🏳️‍🌈 and 🇩🇪",
                               "א ב ג و",
                               "int main() { return 0x1F; }\r\n",
                               "12345678901234567890"};
  for (const std::string& text : texts) {
    const auto tokens = vocabulary_->Tokenize(text, false, false);
    ASSERT_TRUE(tokens.ok());
    std::string back = Join(*tokens);
    if (!back.empty() && back[0] == ' ' && text[0] != ' ') back.erase(0, 1);  // SentencePiece's leading space
    EXPECT_EQ(back, text);
  }
}

TEST_P(VocabularyTest, AnyBytesAreAccepted) {
  const std::string texts[] = {std::string("\xFF\xFE\x80 abc \xC3", 9), std::string("a\0b", 3), "\xF0\x9F\x98",
                               "\xED\xA0\x80", std::string(256, '\x80')};
  for (const std::string& text : texts) {
    const auto tokens = vocabulary_->Tokenize(text, false, false);
    ASSERT_TRUE(tokens.ok());
    EXPECT_FALSE(tokens->empty());
    for (const TokenId token : *tokens) EXPECT_LT(token, vocabulary_->size());
  }
}

TEST_P(VocabularyTest, LongTextsWithoutBordersAreBearable) {
  for (const char c : {'a', '7', ' ', '\n'}) {
    const auto tokens = vocabulary_->Tokenize(std::string(100000, c), false, false);
    ASSERT_TRUE(tokens.ok());
    EXPECT_EQ(Join(*tokens).size(), 100000U);
  }
}

TEST_P(VocabularyTest, TooMuchTextIsRefused) {
  const std::string text((64U << 20) + 1, 'a');
  const auto tokens = vocabulary_->Tokenize(text, false, false);
  ASSERT_FALSE(tokens.ok());
  EXPECT_EQ(tokens.error().code, ErrorCode::kInvalidArgument);
}

TEST_P(VocabularyTest, TokensOutsideTheVocabularyAreEmpty) {
  EXPECT_EQ(vocabulary_->Piece(-1, true), "");
  EXPECT_EQ(vocabulary_->Piece(vocabulary_->size(), true), "");
  EXPECT_FALSE(vocabulary_->IsEndOfGeneration(-1));
  EXPECT_FALSE(vocabulary_->IsEndOfGeneration(vocabulary_->size()));
}

TEST_P(VocabularyTest, EndTokensAreControlTokensAndHiddenUnlessAskedFor) {
  ASSERT_FALSE(vocabulary_->end_of_generation_tokens().empty());
  EXPECT_TRUE(vocabulary_->IsEndOfGeneration(vocabulary_->eos()));
  for (const TokenId token : vocabulary_->end_of_generation_tokens()) {
    EXPECT_TRUE(vocabulary_->IsEndOfGeneration(token));
    EXPECT_NE(vocabulary_->Piece(token, true), "");
  }
  EXPECT_EQ(vocabulary_->Piece(vocabulary_->eos(), false), "");
}

INSTANTIATE_TEST_SUITE_P(Models, VocabularyTest, testing::Values("smollm2", "gemma3"),
                         [](const auto& model) { return std::string(model.param); });

// The vocabulary of `model` with another pre-tokenizer: a file of the header alone, with a hole where the weights were.
std::shared_ptr<const Vocabulary> WithPreTokenizer(const ModelFile& model, const std::string& pre) {
  Gguf gguf = model.gguf;
  gguf.Set("tokenizer.ggml.pre", GgufValue::String(pre));
  const std::vector<std::uint8_t> header = SerializeGguf(gguf);
  const std::string path = testing::TempDir() + "/pre_tokenizer.gguf";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
  std::filesystem::resize_file(path, header.size() + model.gguf.file_bytes);
  const auto file = OpenModelFile(path);
  EXPECT_TRUE(file.ok()) << file.error().message;
  if (!file.ok()) return nullptr;
  const auto vocabulary = Vocabulary::Open(*file);
  std::filesystem::remove(path);
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.error().message;
  return vocabulary.ok() ? *vocabulary : nullptr;
}

// Most pre-tokenizers are regular expressions of the standard library, which recurse with each character of a run.
TEST(Vocabulary, EveryPreTokenizerBearsLongTextsWithoutBorders) {
  const auto model = OpenModelFile(TestModelPath("smollm2"));
  ASSERT_TRUE(model.ok());
  for (const char* pre : {"deepseek-llm", "falcon", "bloom", "tekken", "gpt-4o", "default", "qwen2"}) {
    const auto vocabulary = WithPreTokenizer(**model, pre);
    ASSERT_NE(vocabulary, nullptr) << pre;
    for (const char* unit : {"a", " ", " \n", "!", "日", "aZ7/", "/\n", " \u3000"}) {
      std::string text;
      while (text.size() < 50'000) text += unit;
      // As a thread of the API: with the usual stack.
      std::thread([&] {
        const auto tokens = vocabulary->Tokenize(text, false, false);
        ASSERT_TRUE(tokens.ok()) << pre << unit;
        std::string back;
        for (const TokenId token : *tokens) back += vocabulary->Piece(token, false);
        EXPECT_EQ(back, text) << pre << unit;
      }).join();
    }
  }
}

TEST(Vocabulary, SpecialTokensAreParsedOnlyWhenAsked) {
  const auto vocabulary = SmolLm2Vocabulary();
  EXPECT_EQ(vocabulary->Tokenize("<|im_end|>", false, true)->size(), 1U);
  EXPECT_GT(vocabulary->Tokenize("<|im_end|>", false, false)->size(), 1U);
}

TEST(Vocabulary, BosComesOnceWhereTheModelWantsIt) {
  const auto vocabulary = Gemma3Vocabulary();
  const auto tokens = *vocabulary->Tokenize("Hello", true, true);
  ASSERT_GE(tokens.size(), 2U);
  EXPECT_EQ(tokens[0], vocabulary->bos());
  EXPECT_NE(tokens[1], vocabulary->bos());
}

TEST(Vocabulary, AFileWithoutTokenizerIsUnsupported) {
  auto model = std::make_shared<ModelFile>();
  model->path = "none.gguf";
  model->gguf.Set("tokenizer.ggml.model", GgufValue::String("none"));
  const auto none = Vocabulary::Open(model);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kUnsupported);
}

// What a node has of a model that it runs a middle stage of, or none.
class HeaderOnly final : public TensorSource {
 public:
  HeaderOnly(std::shared_ptr<const TensorSource> whole, std::uint64_t bytes)
      : whole_(std::move(whole)), bytes_(bytes) {}
  Result<std::unique_ptr<TensorReader>> Open() const override {
    struct Reader final : TensorReader {
      Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override {
        if (offset + out.size() > bytes) return Error{ErrorCode::kNotFound, "the tensors are not here"};
        return whole->Read(offset, out);
      }
      std::unique_ptr<TensorReader> whole;
      std::uint64_t bytes = 0;
    };
    auto reader = std::make_unique<Reader>();
    SHOAL_ASSIGN_OR_RETURN(reader->whole, whole_->Open());
    reader->bytes = bytes_;
    return std::unique_ptr<TensorReader>(std::move(reader));
  }

 private:
  const std::shared_ptr<const TensorSource> whole_;
  const std::uint64_t bytes_;
};

TEST(Vocabulary, NeedsNoTensors) {
  const auto whole = OpenModelFile(TestModelPath("smollm2"));
  ASSERT_TRUE(whole.ok());
  auto header = std::make_shared<ModelFile>(**whole);
  header->source = std::make_shared<HeaderOnly>((*whole)->source, (*whole)->gguf.data_offset);
  const auto vocabulary = Vocabulary::Open(header);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
  EXPECT_EQ((*vocabulary)->size(), SmolLm2Vocabulary()->size());
}

TEST(Vocabulary, AFileThatIsNotAModelIsCorrupt) {
  const std::string path = testing::TempDir() + "/vocabulary_test_broken.gguf";
  std::ofstream(path, std::ios::binary) << "GGUF, but not really";
  auto model = std::make_shared<ModelFile>();
  model->path = path;
  model->gguf.file_bytes = std::filesystem::file_size(path);
  model->source = MakeFileSource(path, model->gguf.file_bytes);
  model->gguf.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  const auto broken = Vocabulary::Open(model);
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(broken.error().message.find(path), std::string::npos);
}

}  // namespace
}  // namespace shoal
