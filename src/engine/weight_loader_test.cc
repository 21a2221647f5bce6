// Weights brought by all cores in pieces against libllama's own loader: the same bytes in the same kinds of memory, for
// every type that is repacked, and experts.
#include "engine/weight_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "engine/llama_log.h"
#include "engine/llama_shard.h"
#include "engine/virtual_file.h"
#include "ggml-backend.h"
#include "ggml.h"

const std::vector<std::pair<std::string, ggml_tensor*>>& llama_internal_get_tensor_map(const llama_model* model);

namespace shoal {
namespace {

constexpr std::uint32_t kEmbd = 1024, kFfn = 4096, kVocab = 96, kExperts = 3;  // weights of several pieces each

class WeightLoaderTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  // One layer, its matrices of `type`, its bytes anything.
  void Write(ggml_type type, bool experts) {
    Gguf gguf;
    gguf.Set("general.architecture", GgufValue::String("llama"));
    for (const auto& [key, value] : std::map<std::string, std::uint32_t>{{"llama.block_count", 1},
                                                                         {"llama.embedding_length", kEmbd},
                                                                         {"llama.feed_forward_length", kFfn},
                                                                         {"llama.attention.head_count", 8},
                                                                         {"llama.context_length", 128}}) {
      gguf.Set(key, GgufValue::U32(value));
    }
    gguf.Set("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5F));
    if (experts) {
      gguf.Set("llama.expert_count", GgufValue::U32(kExperts));
      gguf.Set("llama.expert_used_count", GgufValue::U32(2));
    }
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> dims, ggml_type as) {
      gguf.tensors.push_back({name, std::move(dims), static_cast<std::uint32_t>(as)});
    };
    add("token_embd.weight", {kEmbd, kVocab}, GGML_TYPE_F16);
    add("output_norm.weight", {kEmbd}, GGML_TYPE_F32);
    add("blk.0.attn_norm.weight", {kEmbd}, GGML_TYPE_F32);
    add("blk.0.ffn_norm.weight", {kEmbd}, GGML_TYPE_F32);
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      add(std::string("blk.0.") + name + ".weight", {kEmbd, kEmbd}, type);
    }
    const std::string end = experts ? "_exps.weight" : ".weight";
    for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
      const bool down = std::string(name) == "ffn_down";
      std::vector<std::uint64_t> dims = {down ? kFfn : kEmbd, down ? kEmbd : kFfn};
      if (experts) dims.push_back(kExperts);
      add("blk.0." + (name + end), dims, type);
    }
    if (experts) add("blk.0.ffn_gate_inp.weight", {kEmbd, kExperts}, GGML_TYPE_F32);
    std::string data(LayOutTensors(gguf), '\0');
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((i * 2654435761U) >> 13);
    const std::vector<std::uint8_t> header = SerializeGguf(gguf);
    path_ = testing::TempDir() + "weight_loader_" + std::to_string(::getpid()) + ".gguf";
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
    out << data;
    out.close();
    auto model = OpenModelFile(path_);
    ASSERT_TRUE(model.ok()) << model.error().message;
    auto shard = MakeShard(*model, {0, 1});
    ASSERT_TRUE(shard.ok()) << shard.error().message;
    shard_ = *std::move(shard);
  }

  LlamaModelPtr LoadByLibllama() {
    auto file = VirtualFile::Open(shard_);
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    return LlamaModelPtr(llama_model_load_from_file_ptr((*file)->file(), params));
  }

  // The kinds of memory that were used.
  std::set<std::string> ExpectSame() {
    std::set<std::string> kinds;
    const LlamaModelPtr expected = LoadByLibllama();
    auto model = LayOutLlamaModel(shard_, EngineOptions());
    EXPECT_TRUE(model.ok()) << model.error().message;
    auto buffers = LoadWeights(shard_, EngineOptions(), model->get());
    EXPECT_TRUE(buffers.ok()) << buffers.error().message;
    if (expected == nullptr || !buffers.ok()) {
      ADD_FAILURE() << "not loaded";
      return kinds;
    }
    std::map<std::string, ggml_tensor*> ours;
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(model->get())) ours[name] = tensor;
    for (const auto& [name, tensor] : llama_internal_get_tensor_map(expected.get())) {
      ggml_tensor* mine = ours[name];
      if (mine == nullptr || mine->buffer == nullptr) {
        ADD_FAILURE() << name;
        continue;
      }
      kinds.insert(ggml_backend_buffer_name(tensor->buffer));
      EXPECT_STREQ(ggml_backend_buffer_name(mine->buffer), ggml_backend_buffer_name(tensor->buffer)) << name;
      EXPECT_EQ(mine->extra, tensor->extra) << name;
      if (name == "token_embd.weight") continue;  // nothing reads it
      EXPECT_EQ(std::memcmp(mine->data, tensor->data, ggml_nbytes(tensor)), 0) << name;
    }
    model->reset();  // before its memory
    return kinds;
  }

  std::string path_;
  Shard shard_;
};

TEST_F(WeightLoaderTest, EveryTypeIsAsLibllamaLoadsIt) {
  InitLlama();
  std::set<std::string> kinds;
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q2_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K,
                               GGML_TYPE_Q8_0, GGML_TYPE_IQ4_NL, GGML_TYPE_MXFP4, GGML_TYPE_F16}) {
    SCOPED_TRACE(ggml_type_name(type));
    Write(type, false);
    kinds.merge(ExpectSame());
  }
  EXPECT_THAT(kinds, testing::Contains("CPU"));
#if defined(__AVX2__)
  EXPECT_THAT(kinds, testing::Contains("CPU_REPACK"));
#endif
}

TEST_F(WeightLoaderTest, ExpertsToo) {
  InitLlama();
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q8_0}) {
    SCOPED_TRACE(ggml_type_name(type));
    Write(type, true);
    (void)ExpectSame();
  }
}

// A disk that has to be waited for, and what was read of it.
struct SlowSource final : TensorSource {
  struct Reader final : TensorReader {
    Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override {
      source->offsets.push_back(offset);  // the threads take turns
      return file->Read(offset, out);
    }
    bool Waits(std::uint64_t /*offset*/) override { return true; }
    std::unique_ptr<TensorReader> file;
    const SlowSource* source = nullptr;
  };
  Result<std::unique_ptr<TensorReader>> Open() const override {
    ++readers;
    auto reader = std::make_unique<Reader>();
    SHOAL_ASSIGN_OR_RETURN(reader->file, file->Open());
    reader->source = this;
    return std::unique_ptr<TensorReader>(std::move(reader));
  }
  std::shared_ptr<const TensorSource> file;
  mutable int readers = 0;
  mutable std::vector<std::uint64_t> offsets;
};

TEST_F(WeightLoaderTest, ADiskIsReadFromBeginningToEnd) {
  InitLlama();
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0}) {
    SCOPED_TRACE(ggml_type_name(type));
    Write(type, false);
    auto slow = std::make_shared<SlowSource>();
    slow->file = shard_.model->source;
    auto model = std::make_shared<ModelFile>(*shard_.model);
    model->source = slow;
    shard_.model = model;
    auto laid_out = LayOutLlamaModel(shard_, EngineOptions());
    ASSERT_TRUE(laid_out.ok()) << laid_out.error().message;
    slow->readers = 0;
    slow->offsets.clear();
    const auto buffers = LoadWeights(shard_, EngineOptions(), laid_out->get());
    ASSERT_TRUE(buffers.ok()) << buffers.error().message;
    EXPECT_EQ(slow->readers, 1);
    EXPECT_GT(slow->offsets.size(), 20U);
    EXPECT_TRUE(std::is_sorted(slow->offsets.begin(), slow->offsets.end()));
    laid_out->reset();  // before its memory
    (void)ExpectSame();
  }
}

TEST_F(WeightLoaderTest, WhatAnotherThreadCannotReadFailsAll) {
  InitLlama();
  Write(GGML_TYPE_Q8_0, false);
  auto model = LayOutLlamaModel(shard_, EngineOptions());
  ASSERT_TRUE(model.ok()) << model.error().message;
  std::filesystem::resize_file(path_, shard_.model->gguf.data_offset);
  const auto buffers = LoadWeights(shard_, EngineOptions(), model->get());
  ASSERT_FALSE(buffers.ok());
  EXPECT_EQ(buffers.error().code, ErrorCode::kIo);
}

TEST_F(WeightLoaderTest, IsCancelled) {
  InitLlama();
  Write(GGML_TYPE_Q8_0, false);
  auto model = LayOutLlamaModel(shard_, EngineOptions());
  ASSERT_TRUE(model.ok()) << model.error().message;
  EngineOptions options;
  options.on_progress = [](float) { return false; };
  const auto buffers = LoadWeights(shard_, options, model->get());
  ASSERT_FALSE(buffers.ok());
  EXPECT_EQ(buffers.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace shoal
