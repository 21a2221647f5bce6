// The model's tokenizer: text to tokens and back. Loads no weights. Safe from any thread after Open.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/model_info.h"

struct llama_model;
struct llama_vocab;

namespace shoal {

class Vocabulary {
 public:
  // Errors: kUnsupported (no tokenizer in the file), kCorrupt, kIo.
  static Result<std::shared_ptr<const Vocabulary>> Open(std::shared_ptr<const ModelFile> model);
  ~Vocabulary();

  // `add_special`: BOS and the like, as the model wants; `parse_special`: "<|im_end|>" in `text` becomes that token.
  // Any bytes are accepted; where a pre-tokenizer could not take a long stretch without spaces, it gets it in pieces.
  // Errors: kInvalidArgument (text over 64 MiB).
  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool add_special, bool parse_special) const;
  // The token's bytes: possibly part of a UTF-8 character. `special`: also control tokens ("<|im_end|>"), else empty.
  // A token outside the vocabulary gives nothing.
  std::string Piece(TokenId token, bool special) const;
  // Piece(token, true) of all tokens, and the tokens in the order of these bytes. Made when first asked for.
  struct Pieces {
    std::vector<std::string> of_token;
    std::vector<TokenId> in_order;
  };
  const Pieces& pieces() const;
  bool IsEndOfGeneration(TokenId token) const;
  // All of them, ascending.
  const std::vector<TokenId>& end_of_generation_tokens() const;
  // Tokens that the model's file says must never be generated, ascending (placeholders of images and the like).
  const std::vector<TokenId>& suppressed_tokens() const;
  std::int32_t size() const;
  TokenId bos() const;  // -1: none
  TokenId eos() const;

  // For text/ (chat templates of llama-common) and the sampler: the vocabulary-only model behind it.
  const llama_model* llama() const;
  const llama_vocab* llama_vocabulary() const;

 private:
  struct State;
  Result<std::vector<TokenId>> TokenizePiece(std::string_view text, bool add_special, bool parse_special) const;
  explicit Vocabulary(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoal
