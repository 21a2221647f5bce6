// For the tests of this module: a small made-up model whose layers have several chunks.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "weights/local_file.h"
#include "weights/manifest.h"

namespace shoal {

// A file with `layers` layers of `rows` rows of 4 KiB, the last `heads` of them prediction heads; its bytes tell their
// offset. Returns `path`.
inline std::string WriteTestModel(const std::string& path, int layers, std::uint64_t rows, int heads = 0) {
  constexpr std::uint32_t kF32 = 0;
  constexpr std::uint64_t kWidth = 1024;
  Gguf gguf;
  gguf.Set("general.architecture", GgufValue::String("llama"));
  gguf.Set("llama.block_count", GgufValue::U32(static_cast<std::uint32_t>(layers)));
  gguf.Set("llama.embedding_length", GgufValue::U32(kWidth));
  gguf.Set("llama.attention.head_count", GgufValue::U32(4));
  gguf.Set("llama.context_length", GgufValue::U32(128));
  gguf.Set("tokenizer.ggml.model", GgufValue::String("none"));
  gguf.Set("llama.vocab_size", GgufValue::U32(300));
  if (heads > 0) gguf.Set("llama.nextn_predict_layers", GgufValue::U32(static_cast<std::uint32_t>(heads)));
  gguf.tensors.push_back({"token_embd.weight", {kWidth, 300}, kF32});
  gguf.tensors.push_back({"rope_freqs.weight", {8}, kF32});
  for (int i = 0; i < layers; ++i) {
    gguf.tensors.push_back({"blk." + std::to_string(i) + ".attn_norm.weight", {kWidth}, kF32});
    gguf.tensors.push_back({"blk." + std::to_string(i) + ".ffn_up.weight", {kWidth, rows}, kF32});
  }
  gguf.tensors.push_back({"output_norm.weight", {kWidth}, kF32});
  gguf.tensors.push_back({"output.weight", {kWidth, 300}, kF32});
  const std::uint64_t data_bytes = LayOutTensors(gguf);
  const std::vector<std::uint8_t> header = SerializeGguf(gguf);
  std::string data(data_bytes, '\0');
  for (std::uint64_t i = 0; i < data_bytes; ++i) data[i] = static_cast<char>((i * 31 + i / 251 + i / 65521) % 255 + 1);
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
  out.write(data.data(), static_cast<std::streamsize>(data.size()));
  return path;
}

inline Result<Manifest> HashTestModel(const std::string& path) {
  SHOAL_ASSIGN_OR_RETURN(const LocalFile file, LookAtLocalFile(path));
  return HashLocalFile(file, {});
}

// The same model as nodes know it that have nothing of it: in one file at its server.
inline Manifest SourcedTestModel(Manifest hashed, SourceFile source) {
  for (WeightRange& range : hashed.ranges) range.chunks.clear();
  hashed.extents = {{0, hashed.file_bytes, 0, 0}};
  hashed.sources = {std::move(source)};
  return hashed;
}

inline std::vector<std::uint8_t> ReadTestFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// A chunk's bytes out of the model file's.
inline std::vector<std::uint8_t> TestChunk(const Manifest& manifest, const std::vector<std::uint8_t>& file,
                                           std::size_t range, std::uint64_t chunk) {
  std::vector<std::uint8_t> out;
  ForExtents(manifest.ranges[range], chunk * manifest.chunk_bytes, manifest.ChunkBytes(range, chunk),
             [&](std::uint64_t offset, std::uint64_t n) {
               out.insert(out.end(), file.begin() + static_cast<std::ptrdiff_t>(offset),
                          file.begin() + static_cast<std::ptrdiff_t>(offset + n));
             });
  return out;
}

}  // namespace shoal
