// The input embeddings of a model, looked up in its source row by row: no stage holds the matrix in memory.
//
// Knows nothing of layers or positions. The system's page cache keeps the rows that are in use.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/model_info.h"

namespace shoal {

class EmbeddingTable {
 public:
  // Each row is multiplied by `scale`. Errors: kCorrupt (no usable token_embd), kUnsupported (its type cannot be
  // decoded), and as TensorSource::Open.
  static Result<std::unique_ptr<EmbeddingTable>> Open(std::shared_ptr<const ModelFile> model, float scale);
  EmbeddingTable(const EmbeddingTable&) = delete;
  EmbeddingTable& operator=(const EmbeddingTable&) = delete;

  // Writes f32 [tokens.size(), n_embd] row-major to `hidden` (resized). Blocks while a row is read from disk.
  // Errors: kInvalidArgument (a token outside the vocabulary), and as TensorReader::Read.
  Status Look(std::span<const TokenId> tokens, std::vector<float>& hidden);

 private:
  EmbeddingTable() = default;

  std::shared_ptr<const ModelFile> model_;
  float scale_ = 1.0F;
  std::unique_ptr<TensorReader> reader_;
  std::uint32_t type_ = 0;    // ggml_type
  std::uint64_t offset_ = 0;  // of row 0 in the file
  std::uint64_t row_bytes_ = 0;
  std::int64_t n_embd_ = 0, n_vocab_ = 0;
  std::vector<std::uint8_t> row_;  // one encoded row
};

}  // namespace shoal
