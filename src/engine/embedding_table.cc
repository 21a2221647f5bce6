// Rows read one by one, decoded by ggml's own type traits: the numbers are those of libllama's lookup.
#include "engine/embedding_table.h"

#include <cstring>

#include "engine/llama_log.h"
#include "ggml.h"

namespace shoal {

Result<std::unique_ptr<EmbeddingTable>> EmbeddingTable::Open(std::shared_ptr<const ModelFile> model, float scale) {
  InitLlama();  // the conversion tables of the half-precision types
  const GgufTensor* tensor = model->gguf.FindTensor("token_embd.weight");
  const ModelInfo& info = model->info;
  if (tensor == nullptr || tensor->dims.size() < 2 || info.n_vocab < 1 ||
      tensor->dims[0] != static_cast<std::uint64_t>(info.n_embd) ||
      tensor->dims[1] != static_cast<std::uint64_t>(info.n_vocab)) {
    return Error{ErrorCode::kCorrupt,
                 model->path + ": token_embd.weight is absent or has another shape than the model"};
  }
  std::unique_ptr<EmbeddingTable> table(new EmbeddingTable);
  const auto type = static_cast<ggml_type>(tensor->type);
  if (tensor->type >= GGML_TYPE_COUNT || (type != GGML_TYPE_F32 && ggml_get_type_traits(type)->to_float == nullptr)) {
    return Error{ErrorCode::kUnsupported, model->path + ": token embeddings of an unknown type"};
  }
  table->type_ = tensor->type;
  table->scale_ = scale;
  table->n_embd_ = info.n_embd;
  table->n_vocab_ = info.n_vocab;
  table->row_bytes_ = ggml_row_size(type, info.n_embd);
  if (table->row_bytes_ * tensor->dims[1] > tensor->bytes) {
    return Error{ErrorCode::kCorrupt, model->path + ": token_embd.weight is shorter than its shape says"};
  }
  table->offset_ = model->gguf.data_offset + tensor->offset;
  table->row_.resize(table->row_bytes_);
  SHOAL_ASSIGN_OR_RETURN(table->reader_, model->source->Open());
  table->model_ = std::move(model);
  return table;
}

Status EmbeddingTable::Look(std::span<const TokenId> tokens, std::vector<float>& hidden) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= n_vocab_) {
      return Error{ErrorCode::kInvalidArgument,
                   "token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(n_vocab_)};
    }
  }
  const auto n_embd = static_cast<std::size_t>(n_embd_);
  hidden.resize(tokens.size() * n_embd);
  const ggml_type_traits* traits = ggml_get_type_traits(static_cast<ggml_type>(type_));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    SHOAL_RETURN_IF_ERROR(reader_->Read(offset_ + static_cast<std::uint64_t>(tokens[i]) * row_bytes_, row_));
    float* out = hidden.data() + i * n_embd;
    if (type_ == GGML_TYPE_F32) {
      std::memcpy(out, row_.data(), row_bytes_);
    } else {
      traits->to_float(row_.data(), out, n_embd_);
    }
    if (scale_ != 1.0F) {
      for (std::size_t j = 0; j < n_embd; ++j) out[j] *= scale_;
    }
  }
  return {};
}

}  // namespace shoal
