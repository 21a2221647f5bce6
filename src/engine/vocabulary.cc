// A libllama model opened with vocab_only: the tokenizer and the chat template, without a single weight.
#include "engine/vocabulary.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <mutex>

#include "engine/llama_guard.h"
#include "engine/llama_log.h"
#include "engine/shard.h"
#include "engine/virtual_file.h"
#include "llama.h"

namespace shoal {
namespace {

constexpr std::size_t kTextBytesMax = 64U << 20;

// Pre-tokenizers that libllama has code of its own for; the others are regular expressions of the standard library,
// which recurse with each character that one match takes.
constexpr std::string_view kIterativePreTokenizers[] = {"gpt-2", "llama-bpe", "llama3", "qwen2", "qwen35", "smollm"};
constexpr std::size_t kMatchBytesMax = 1'024;  // where text is cut for those, if no border comes before
constexpr std::size_t kSpecialBytesMax = 64;   // of "<|im_end|>" and the like, which a cut must not go through

// Whether no match of any pre-tokenizer goes on from `before` to `after`: a word that follows a space or a new line.
bool IsBorder(unsigned char before, unsigned char after) {
  const bool word = (after >= '0' && after <= '9') || (after >= 'a' && after <= 'z') ||
                    (after >= 'A' && after <= 'Z') || (after >= 0xE4 && after <= 0xE9);  // CJK ideographs among these
  return word && (before == ' ' || before == '\n');
}

// Bytes of the first piece of `text`: all of it, unless a stretch without border is too long.
std::size_t PieceBytes(std::string_view text) {
  std::size_t border = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (IsBorder(static_cast<unsigned char>(text[i - 1]), c)) border = i;
    const bool inside = (c & 0xC0U) == 0x80U && i - border < kMatchBytesMax + 4;  // of a character
    if (i - border < kMatchBytesMax || inside) continue;
    const std::size_t open = text.find_last_of("<[", i);
    return open != std::string_view::npos && open > border && i - open < kSpecialBytesMax ? open : i;
  }
  return text.size();
}

struct ModelFree {
  void operator()(llama_model* model) const { llama_model_free(model); }
};

}  // namespace

struct Vocabulary::State {
  std::unique_ptr<llama_model, ModelFree> model;
  const llama_vocab* vocab = nullptr;
  std::int32_t size = 0;
  bool cuts = false;  // long stretches before they are tokenized
  std::vector<TokenId> ends;
  std::vector<TokenId> suppressed;
  std::once_flag pieces_made;
  Pieces pieces;
};

Vocabulary::Vocabulary(std::unique_ptr<State> state) : state_(std::move(state)) {}
Vocabulary::~Vocabulary() = default;

Result<std::shared_ptr<const Vocabulary>> Vocabulary::Open(std::shared_ptr<const ModelFile> model) {
  SHOAL_CHECK(model != nullptr);
  InitLlama();
  LlamaErrors errors;
  const auto fail = [&](ErrorCode code, const std::string& why) {
    return Error{code, "tokenizer of " + model->path + ": " + errors.TextOr(why)};
  };

  const GgufValue* kind = model->gguf.Find("tokenizer.ggml.model");
  const std::string* kind_name = kind == nullptr ? nullptr : kind->AsString();
  if (kind_name == nullptr || *kind_name == "none") {
    return fail(ErrorCode::kUnsupported, "the file has no tokenizer");
  }

  auto state = std::make_unique<State>();
  const Shard header = HeaderFile(model);
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<VirtualFile> file, VirtualFile::Open(header));
  try {
    LlamaGuard guard;
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    params.n_gpu_layers = 0;
    state->model.reset(llama_model_load_from_file_ptr(file->file(), params));
  } catch (const std::exception& e) { return fail(ErrorCode::kCorrupt, e.what()); }
  SHOAL_RETURN_IF_ERROR(file->status());
  if (state->model == nullptr) return fail(ErrorCode::kCorrupt, "libllama cannot read it");
  state->vocab = llama_model_get_vocab(state->model.get());
  if (llama_vocab_type(state->vocab) == LLAMA_VOCAB_TYPE_NONE) {
    return fail(ErrorCode::kUnsupported, "the file has no tokenizer");
  }
  state->size = llama_vocab_n_tokens(state->vocab);
  const GgufValue* pre = model->gguf.Find("tokenizer.ggml.pre");
  const std::string* pre_name = pre == nullptr ? nullptr : pre->AsString();
  state->cuts =
      llama_vocab_type(state->vocab) == LLAMA_VOCAB_TYPE_BPE &&
      (pre_name == nullptr || std::find(std::begin(kIterativePreTokenizers), std::end(kIterativePreTokenizers),
                                        *pre_name) == std::end(kIterativePreTokenizers));
  if (state->size <= 0) return fail(ErrorCode::kCorrupt, "no tokens");
  for (TokenId token = 0; token < state->size; ++token) {
    if (llama_vocab_is_eog(state->vocab, token)) state->ends.push_back(token);
  }
  std::int32_t suppressed_count = 0;
  const llama_token* suppressed = llama_vocab_get_suppress_tokens(state->vocab, &suppressed_count);
  for (std::int32_t i = 0; i < suppressed_count; ++i) {
    if (suppressed[i] >= 0 && suppressed[i] < state->size) state->suppressed.push_back(suppressed[i]);
  }
  std::sort(state->suppressed.begin(), state->suppressed.end());
  return std::shared_ptr<const Vocabulary>(new Vocabulary(std::move(state)));
}

Result<std::vector<TokenId>> Vocabulary::Tokenize(std::string_view text, bool add_special, bool parse_special) const {
  if (text.size() > kTextBytesMax) {
    return Error{ErrorCode::kInvalidArgument, "text of " + std::to_string(text.size()) + " bytes; at most " +
                                                  std::to_string(kTextBytesMax) + " can be tokenized at once"};
  }
  const std::size_t first = state_->cuts ? PieceBytes(text) : text.size();
  if (first == text.size()) return TokenizePiece(text, add_special, parse_special);
  std::vector<TokenId> tokens;
  if (add_special && llama_vocab_get_add_bos(state_->vocab) && bos() >= 0) tokens.push_back(bos());
  for (std::size_t bytes = first; !text.empty(); bytes = PieceBytes(text)) {
    SHOAL_ASSIGN_OR_RETURN(const std::vector<TokenId> piece,
                           TokenizePiece(text.substr(0, bytes), false, parse_special));
    tokens.insert(tokens.end(), piece.begin(), piece.end());
    text.remove_prefix(bytes);
  }
  if (add_special && llama_vocab_get_add_eos(state_->vocab) && eos() >= 0) tokens.push_back(eos());
  return tokens;
}

Result<std::vector<TokenId>> Vocabulary::TokenizePiece(std::string_view text, bool add_special,
                                                       bool parse_special) const {
  const auto length = static_cast<std::int32_t>(text.size());
  std::vector<TokenId> tokens(text.size() / 3 + 16);
  LlamaErrors errors;
  try {
    LlamaGuard guard;
    std::int32_t n = llama_tokenize(state_->vocab, text.data(), length, tokens.data(),
                                    static_cast<std::int32_t>(tokens.size()), add_special, parse_special);
    if (n < 0 && n != INT32_MIN) {  // too small: the negative of what is needed
      tokens.resize(static_cast<std::size_t>(-n));
      n = llama_tokenize(state_->vocab, text.data(), length, tokens.data(), static_cast<std::int32_t>(tokens.size()),
                         add_special, parse_special);
    }
    if (n < 0)
      return Error{ErrorCode::kInvalidArgument, "tokenize: " + errors.TextOr("more tokens than can be counted")};
    tokens.resize(static_cast<std::size_t>(n));
  } catch (const std::exception& e) {
    return Error{ErrorCode::kInvalidArgument, std::string("the text cannot be tokenized: ") + e.what()};
  }
  return tokens;
}

std::string Vocabulary::Piece(TokenId token, bool special) const {
  if (token < 0 || token >= state_->size) return "";
  std::string piece(64, '\0');
  std::int32_t n =
      llama_token_to_piece(state_->vocab, token, piece.data(), static_cast<std::int32_t>(piece.size()), 0, special);
  if (n < 0) {
    piece.resize(static_cast<std::size_t>(-n));
    n = llama_token_to_piece(state_->vocab, token, piece.data(), static_cast<std::int32_t>(piece.size()), 0, special);
  }
  piece.resize(static_cast<std::size_t>(std::max(n, 0)));
  return piece;
}

const Vocabulary::Pieces& Vocabulary::pieces() const {
  std::call_once(state_->pieces_made, [this] {
    Pieces& pieces = state_->pieces;
    for (TokenId token = 0; token < state_->size; ++token) {
      pieces.of_token.push_back(Piece(token, true));
      pieces.in_order.push_back(token);
    }
    std::sort(pieces.in_order.begin(), pieces.in_order.end(), [&](TokenId a, TokenId b) {
      return pieces.of_token[static_cast<std::size_t>(a)] < pieces.of_token[static_cast<std::size_t>(b)];
    });
  });
  return state_->pieces;
}

bool Vocabulary::IsEndOfGeneration(TokenId token) const {
  return std::binary_search(state_->ends.begin(), state_->ends.end(), token);
}

const std::vector<TokenId>& Vocabulary::end_of_generation_tokens() const { return state_->ends; }
const std::vector<TokenId>& Vocabulary::suppressed_tokens() const { return state_->suppressed; }
std::int32_t Vocabulary::size() const { return state_->size; }
TokenId Vocabulary::bos() const { return llama_vocab_bos(state_->vocab); }
TokenId Vocabulary::eos() const { return llama_vocab_eos(state_->vocab); }
const llama_model* Vocabulary::llama() const { return state_->model.get(); }
const llama_vocab* Vocabulary::llama_vocabulary() const { return state_->vocab; }

}  // namespace shoal
