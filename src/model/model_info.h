// What a model is, read from its GGUF header alone: architecture, layers, widths, sizes by layer, KV cost.
//
// Knows nothing of where a model may be cut (engine/split_rules.h) or of devices.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/gguf.h"
#include "model/tensor_source.h"

namespace shoal {

enum class KvType : std::uint8_t { kF16 = 0, kQ8_0 = 1 };
// "f16", "q8_0". Errors: kInvalidArgument.
Result<KvType> ParseKvType(std::string_view name);
std::string_view KvTypeName(KvType type);

struct ModelInfo {
  std::string path;
  std::string name;          // general.name, or the file's name
  std::string architecture;  // general.architecture
  std::string quantization;  // the type that holds most of the bytes, e.g. "Q4_1"
  std::int32_t n_layer = 0;
  std::int32_t n_embd = 0;
  std::int32_t n_vocab = 0;
  std::int32_t n_head = 0;
  std::int32_t n_ctx_train = 0;
  std::int32_t n_expert = 0;
  std::uint64_t parameters = 0;
  std::uint64_t file_bytes = 0;
  std::vector<std::uint64_t> layer_bytes;  // [n_layer]: weights of blk.<i>.*
  std::vector<std::uint32_t> kv_elements;  // [n_layer]: elements of K and V per token (0 for recurrent layers)
  std::uint64_t embedding_bytes = 0;       // token_embd
  std::uint64_t output_bytes = 0;          // output head: output.* and output_norm.*, token_embd once more when tied
  bool tied_output = false;                // no output.weight: token_embd serves both
  bool recurrent = false;                  // has recurrent layers: cannot be rewound to any position

  // Bytes of K and V for one token over `layers`.
  std::uint64_t KvBytesPerToken(LayerRange layers, KvType type) const;
  // Weights of a stage: its layers, and on the last stage the output head. Input embeddings are mapped, not loaded.
  std::uint64_t StageWeightBytes(LayerRange layers) const;
};

// Errors: kCorrupt (a required key is absent or absurd), kUnsupported (no decoder layers).
Result<ModelInfo> DescribeModel(const Gguf& gguf, const std::string& path);

// A model, opened once and shared by the stages of this process: its header, and where its bytes are.
struct ModelFile {
  std::string path;  // of the GGUF file, or of its first part; a model that has none here: what to call it in messages
  Gguf gguf;
  ModelInfo info;
  std::shared_ptr<const TensorSource> source;
};
// `path`: of the file; of a model in parts (model/split_gguf.h) that of any part, with the others beside it, and its
// offsets are those of the parts joined. Errors: as ReadGguf, JoinGguf and DescribeModel; kNotFound names the part.
Result<std::shared_ptr<const ModelFile>> OpenModelFile(const std::string& path);
// Of a model whose header is here and whose bytes are elsewhere. Errors: as ParseGguf and DescribeModel.
Result<std::shared_ptr<const ModelFile>> MakeModelFile(const std::string& path, std::span<const std::uint8_t> header,
                                                       std::uint64_t file_bytes,
                                                       std::shared_ptr<const TensorSource> source);

// Layers cut into stages. "3": three stages of about equal layers; "0-9,10-19,20-29": as written, ends inclusive.
// Errors: kInvalidArgument (zero stages, more stages than layers, a gap, an overlap, out of range), saying which.
Result<std::vector<LayerRange>> ParseStages(std::string_view text, std::int32_t n_layer);

}  // namespace shoal
