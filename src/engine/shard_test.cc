// Shards of a small made-up model: which tensors they have, under which names, and where their bytes lie; and the same
// bytes read back through the virtual file.
#include "engine/shard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "engine/virtual_file.h"

namespace shoal {
namespace {

constexpr std::uint32_t kF32 = 0;
constexpr std::uint64_t kEmbd = 64, kVocab = 50000;  // token_embd is large enough to be given as sparse zeros

std::uint8_t DataByte(std::uint64_t offset) {
  return static_cast<std::uint8_t>((offset * 31 + offset / 251) % 255 + 1);
}

// A model file with 4 layers whose data bytes tell their offset.
class ShardTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "shard_test_" + std::to_string(::getpid()) + ".gguf";
    Gguf gguf;
    gguf.Set("general.architecture", GgufValue::String("llama"));
    gguf.Set("llama.block_count", GgufValue::U32(4));
    gguf.Set("llama.embedding_length", GgufValue::U32(kEmbd));
    gguf.Set("llama.attention.head_count", GgufValue::U32(4));
    gguf.Set("llama.context_length", GgufValue::U32(128));
    gguf.Set("split.count", GgufValue::U32(0));
    gguf.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
    gguf.Set("tokenizer.ggml.token_type", GgufValue::ArrayU32(std::vector<std::uint32_t>(kVocab, 1)));
    gguf.Set("tokenizer.ggml.bos_token_id", GgufValue::U32(1));
    gguf.Set("tokenizer.chat_template", GgufValue::String(std::string(5000, 'x')));
    gguf.tensors.push_back({"token_embd.weight", {kEmbd, kVocab}, kF32});
    gguf.tensors.push_back({"rope_freqs.weight", {8}, kF32});
    for (int i = 0; i < 4; ++i) {
      gguf.tensors.push_back({"blk." + std::to_string(i) + ".attn_norm.weight", {kEmbd}, kF32});
      gguf.tensors.push_back({"blk." + std::to_string(i) + ".ffn_up.weight", {kEmbd, 3}, kF32});
    }
    gguf.tensors.push_back({"output_norm.weight", {kEmbd}, kF32});
    const std::uint64_t data_bytes = LayOutTensors(gguf);
    const std::vector<std::uint8_t> header = SerializeGguf(gguf);
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
    std::string data(data_bytes, '\0');
    for (std::uint64_t i = 0; i < data_bytes; ++i) data[i] = static_cast<char>(DataByte(i));
    out.write(data.data(), static_cast<std::streamsize>(data.size()));
    out.close();
    auto file = OpenModelFile(path_);
    ASSERT_TRUE(file.ok()) << file.error().message;
    model_ = *file;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Shard Make(LayerRange layers, ShardHead head = ShardHead::kSeparate) {
    auto shard = MakeShard(model_, layers, head);
    EXPECT_TRUE(shard.ok()) << shard.error().message;
    return std::move(shard).value();
  }

  // The whole virtual file, in reads of `piece` bytes.
  static std::vector<std::uint8_t> Read(const Shard& shard, std::size_t piece) {
    auto file = VirtualFile::Open(shard);
    EXPECT_TRUE(file.ok());
    std::vector<std::uint8_t> bytes(shard.bytes + 16, 0xEE);
    std::size_t done = 0;
    while (const std::size_t n =
               std::fread(bytes.data() + done, 1, std::min(piece, bytes.size() - done), (*file)->file())) {
      done += n;
    }
    EXPECT_EQ(done, shard.bytes);
    EXPECT_TRUE((*file)->status().ok());
    bytes.resize(done);
    return bytes;
  }

  // Every tensor of the shard, checked against the model's tensor `source` (by name; "" : zeros).
  void ExpectData(const Gguf& gguf, const std::vector<std::uint8_t>& bytes, const std::string& name,
                  const std::string& source) {
    const GgufTensor* tensor = gguf.FindTensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    const GgufTensor* from = source.empty() ? nullptr : model_->gguf.FindTensor(source);
    ASSERT_EQ(from == nullptr, source.empty());
    if (from != nullptr) { ASSERT_EQ(from->bytes, tensor->bytes); }
    for (std::uint64_t i = 0; i < tensor->bytes; ++i) {
      const std::uint8_t expected = from == nullptr ? 0 : DataByte(from->offset + i);
      ASSERT_EQ(bytes[gguf.data_offset + tensor->offset + i], expected) << name << " byte " << i;
    }
  }

  std::string path_;
  std::shared_ptr<const ModelFile> model_;
};

TEST_F(ShardTest, MiddleStageHasItsLayersAndDummies) {
  const Shard shard = Make({1, 3});
  const std::vector<std::uint8_t> bytes = Read(shard, 1 << 20);
  auto gguf = ParseGguf(bytes, bytes.size());
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  EXPECT_EQ(gguf->Find("llama.block_count")->AsInt(), 2);
  EXPECT_EQ(gguf->Find("llama.vocab_size")->AsInt(), 32);
  EXPECT_EQ(*gguf->Find("tokenizer.ggml.model")->AsString(), "none");
  EXPECT_NE(gguf->Find("tokenizer.ggml.bos_token_id"), nullptr);
  for (const char* key : {"tokenizer.ggml.token_type", "tokenizer.chat_template", "split.count"}) {
    EXPECT_EQ(gguf->Find(key), nullptr) << key;
  }
  EXPECT_EQ(gguf->tensors.size(), 2U + 2 * 2 + 1);
  ExpectData(*gguf, bytes, "blk.0.attn_norm.weight", "blk.1.attn_norm.weight");
  ExpectData(*gguf, bytes, "blk.1.ffn_up.weight", "blk.2.ffn_up.weight");
  ExpectData(*gguf, bytes, "rope_freqs.weight", "rope_freqs.weight");
  ExpectData(*gguf, bytes, "token_embd.weight", "");
  ExpectData(*gguf, bytes, "output_norm.weight", "");
  EXPECT_EQ(gguf->FindTensor("token_embd.weight")->dims, (std::vector<std::uint64_t>{kEmbd, 32}));
  EXPECT_EQ(shard.weight_bytes, 32U + 2 * (kEmbd * 4 + kEmbd * 3 * 4));
  EXPECT_FALSE(shard.is_last);
}

TEST_F(ShardTest, LastStageHasTheHeadOfItsOwn) {
  const Shard shard = Make({3, 4});
  const std::vector<std::uint8_t> bytes = Read(shard, 1 << 20);
  auto gguf = ParseGguf(bytes, bytes.size());
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  EXPECT_EQ(gguf->Find("llama.vocab_size")->AsInt(), static_cast<std::int64_t>(kVocab));
  ExpectData(*gguf, bytes, "output.weight", "token_embd.weight");
  ExpectData(*gguf, bytes, "token_embd.weight", "");
  ExpectData(*gguf, bytes, "output_norm.weight", "output_norm.weight");
  ExpectData(*gguf, bytes, "blk.0.ffn_up.weight", "blk.3.ffn_up.weight");
  EXPECT_LT(gguf->FindTensor("token_embd.weight")->bytes, model_->gguf.FindTensor("token_embd.weight")->bytes / 4);
  EXPECT_TRUE(shard.is_last);
}

TEST_F(ShardTest, AsStoredKeepsTheTiedMatrix) {
  const Shard shard = Make({0, 4}, ShardHead::kAsStored);
  const std::vector<std::uint8_t> bytes = Read(shard, 1 << 20);
  auto gguf = ParseGguf(bytes, bytes.size());
  ASSERT_TRUE(gguf.ok());
  EXPECT_EQ(gguf->FindTensor("output.weight"), nullptr);
  for (const GgufTensor& tensor : model_->gguf.tensors) ExpectData(*gguf, bytes, tensor.name, tensor.name);
}

TEST_F(ShardTest, ReadsOfAnySizeGiveTheSameBytes) {
  const Shard shard = Make({1, 4});
  const std::vector<std::uint8_t> once = Read(shard, shard.bytes);
  EXPECT_EQ(Read(shard, 100003), once);
  EXPECT_EQ(Read(shard, 4096), once);
}

TEST_F(ShardTest, SeeksAsAFileDoes) {
  const Shard shard = Make({1, 3});
  const std::vector<std::uint8_t> all = Read(shard, shard.bytes);
  auto opened = VirtualFile::Open(shard);
  ASSERT_TRUE(opened.ok());
  std::FILE* file = (*opened)->file();
  ASSERT_EQ(std::fseek(file, 0, SEEK_END), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(std::ftell(file)), shard.bytes);
  for (const std::uint64_t at : {std::uint64_t{0}, shard.bytes - 1, shard.header.size() - 1, shard.bytes / 2}) {
    ASSERT_EQ(std::fseek(file, static_cast<long>(at), SEEK_SET), 0);
    EXPECT_EQ(std::fgetc(file), all[at]) << at;
  }
  EXPECT_NE(std::fseek(file, -1, SEEK_SET), 0);
}

TEST_F(ShardTest, AFileThatShrankIsAnIoError) {
  const Shard shard = Make({1, 3});
  auto opened = VirtualFile::Open(shard);
  ASSERT_TRUE(opened.ok());
  std::filesystem::resize_file(path_, model_->gguf.data_offset + 16);
  std::vector<std::uint8_t> bytes(shard.bytes);
  EXPECT_LT(std::fread(bytes.data(), 1, bytes.size(), (*opened)->file()), bytes.size());
  ASSERT_FALSE((*opened)->status().ok());
  EXPECT_EQ((*opened)->status().error().code, ErrorCode::kIo);

  const auto again = VirtualFile::Open(shard);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::kIo);
}

TEST_F(ShardTest, RefusesImpossibleRanges) {
  for (const LayerRange layers : {LayerRange{-1, 2}, LayerRange{2, 2}, LayerRange{3, 2}, LayerRange{0, 5}}) {
    const auto shard = MakeShard(model_, layers);
    ASSERT_FALSE(shard.ok());
    EXPECT_EQ(shard.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST_F(ShardTest, AnUnknownArchitectureRunsWholeOnly) {
  auto other = std::make_shared<ModelFile>(*model_);
  other->info.architecture = "unheard-of";
  other->gguf.Set("general.architecture", GgufValue::String("unheard-of"));
  EXPECT_TRUE(MakeShard(other, {0, 4}, ShardHead::kAsStored).ok());
  const auto shard = MakeShard(other, {0, 2});
  ASSERT_FALSE(shard.ok());
  EXPECT_EQ(shard.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace shoal
