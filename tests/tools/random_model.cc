// Writes a Llama-shaped Q4_0 model with random weights and a real tokenizer: large models for tests, without large
// downloads. Its answers mean nothing; its sizes and speeds are those of a model of that shape.
//
//   shoal_random_model 1B|3B|8B TOKENIZER.gguf OUT.gguf [SEED]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "model/gguf.h"
#include "model/model_info.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr std::uint32_t kF32 = 0, kQ4_0 = 2;  // ggml_type
constexpr std::size_t kBlockBytes = 18, kPieceBytes = 1U << 20;

// Of Llama 3.2 1B and 3B, and of Llama 3.1 8B, by their published configurations.
struct Shape {
  const char* name;
  std::uint32_t layers, width, feed_forward, heads, kv_heads, head_width;
};
constexpr Shape kShapes[] = {
    {"1B", 16, 2048, 8192, 32, 8, 64}, {"3B", 28, 3072, 8192, 24, 8, 128}, {"8B", 32, 4096, 14336, 32, 8, 128}};

Gguf MakeHeader(const Shape& shape, const Gguf& tokenizer, std::uint64_t vocabulary) {
  Gguf gguf;
  gguf.Set("general.architecture", GgufValue::String("llama"));
  gguf.Set("general.name", GgufValue::String(std::string("Random ") + shape.name));
  const auto number = [&](const char* key, std::uint32_t value) {
    gguf.Set(std::string("llama.") + key, GgufValue::U32(value));
  };
  number("block_count", shape.layers);
  number("embedding_length", shape.width);
  number("feed_forward_length", shape.feed_forward);
  number("attention.head_count", shape.heads);
  number("attention.head_count_kv", shape.kv_heads);
  number("rope.dimension_count", shape.head_width);
  number("context_length", 8192);
  number("vocab_size", static_cast<std::uint32_t>(vocabulary));
  gguf.Set("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5F));
  gguf.Set("llama.rope.freq_base", GgufValue::F32(500000.0F));
  for (const auto& [key, value] : tokenizer.metadata) {
    if (key.starts_with("tokenizer.")) gguf.Set(key, value);
  }
  const std::uint64_t width = shape.width, feed = shape.feed_forward;
  const std::uint64_t query = std::uint64_t{shape.heads} * shape.head_width;
  const std::uint64_t key_value = std::uint64_t{shape.kv_heads} * shape.head_width;
  gguf.tensors.push_back({"token_embd.weight", {width, vocabulary}, kQ4_0});
  for (std::uint32_t i = 0; i < shape.layers; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    gguf.tensors.push_back({layer + "attn_norm.weight", {width}, kF32});
    gguf.tensors.push_back({layer + "attn_q.weight", {width, query}, kQ4_0});
    gguf.tensors.push_back({layer + "attn_k.weight", {width, key_value}, kQ4_0});
    gguf.tensors.push_back({layer + "attn_v.weight", {width, key_value}, kQ4_0});
    gguf.tensors.push_back({layer + "attn_output.weight", {query, width}, kQ4_0});
    gguf.tensors.push_back({layer + "ffn_norm.weight", {width}, kF32});
    gguf.tensors.push_back({layer + "ffn_gate.weight", {width, feed}, kQ4_0});
    gguf.tensors.push_back({layer + "ffn_up.weight", {width, feed}, kQ4_0});
    gguf.tensors.push_back({layer + "ffn_down.weight", {feed, width}, kQ4_0});
  }
  gguf.tensors.push_back({"output_norm.weight", {width}, kF32});
  gguf.tensors.push_back({"output.weight", {width, vocabulary}, kQ4_0});
  return gguf;
}

// Norms are ones. A block of Q4_0 is a scale and 32 random nibbles, of the size that a trained matrix of that width
// has.
void WriteTensor(std::ofstream& out, const GgufTensor& tensor, Rng& rng) {
  if (tensor.type == kF32) {
    const std::vector<float> ones(tensor.bytes / sizeof(float), 1.0F);
    out.write(reinterpret_cast<const char*>(ones.data()), static_cast<std::streamsize>(tensor.bytes));
    return;
  }
  constexpr std::uint16_t kScale = 0x1800;  // 2^-9 as f16
  std::vector<char> piece(kPieceBytes / kBlockBytes * kBlockBytes);
  for (std::uint64_t done = 0; done < tensor.bytes;) {
    const std::size_t n = std::min<std::uint64_t>(piece.size(), tensor.bytes - done);
    for (std::size_t at = 0; at < n; at += kBlockBytes) {
      const std::uint64_t nibbles[2] = {rng.Next(), rng.Next()};
      std::memcpy(piece.data() + at, &kScale, sizeof kScale);
      std::memcpy(piece.data() + at + sizeof kScale, nibbles, sizeof nibbles);
    }
    out.write(piece.data(), static_cast<std::streamsize>(n));
    done += n;
  }
}

int Main(int argc, char** argv) {
  const Shape* shape = argc < 4 ? std::end(kShapes)
                                : std::find_if(std::begin(kShapes), std::end(kShapes),
                                               [&](const Shape& one) { return std::strcmp(one.name, argv[1]) == 0; });
  if (shape == std::end(kShapes)) {
    std::fputs("usage: shoal_random_model 1B|3B|8B TOKENIZER.gguf OUT.gguf [SEED]\n", stderr);
    return 2;
  }
  const auto tokenizer = OpenModelFile(argv[2]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  Gguf gguf = MakeHeader(*shape, (*tokenizer)->gguf, static_cast<std::uint64_t>((*tokenizer)->info.n_vocab));
  LayOutTensors(gguf);
  const std::vector<std::uint8_t> header = SerializeGguf(gguf);
  Rng rng(argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1);
  std::ofstream out(argv[3], std::ios::binary);
  out.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
  for (std::size_t i = 0; i < gguf.tensors.size(); ++i) {
    WriteTensor(out, gguf.tensors[i], rng);
    const std::uint64_t next = i + 1 < gguf.tensors.size() ? gguf.tensors[i + 1].offset : 0;
    const std::uint64_t end = gguf.tensors[i].offset + gguf.tensors[i].bytes;
    for (std::uint64_t pad = end; pad < next; ++pad) out.put('\0');
  }
  out.close();
  if (!out) std::fprintf(stderr, "cannot write %s\n", argv[3]);
  return out ? 0 : 1;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
