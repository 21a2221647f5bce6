// Reads what a model is out of a GGUF header. See model_info.h.
//
// Key names and defaults: llama.cpp's llama-arch.cpp, llama-model.cpp (load_hparams) and the recurrent layers of
// src/models/. Where metadata leaves a layer's kind open, the larger KV size is taken.
#include "model/model_info.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>
#include <optional>

#include "model/split_gguf.h"

namespace shoal {
namespace {

constexpr std::int64_t kLayersMax = 4096;
constexpr std::int64_t kEmbeddingMax = 65536;
constexpr std::int64_t kHeadsMax = 65536;
constexpr std::int64_t kHeadWidthMax = 65536;
constexpr std::int64_t kVocabularyMax = 1 << 26;
constexpr std::int64_t kKvElementsMax = 1 << 28;  // of one layer
constexpr std::size_t kNameBytesMax = 256;

Error Corrupt(const std::string& what) { return {ErrorCode::kCorrupt, "unusable model: " + what}; }

bool Contains(std::span<const std::string_view> list, std::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// A text of the file, fit to be shown on one line.
std::string Printable(std::string_view text) {
  std::string out(text.substr(0, kNameBytesMax));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7F') c = '?';
  }
  return out;
}

// The keys "<architecture>.<suffix>" of one header.
class Keys {
 public:
  Keys(const Gguf& gguf, std::string architecture) : gguf_(gguf), architecture_(std::move(architecture)) {}

  const GgufValue* Find(std::string_view suffix) const { return gguf_.Find(Name(suffix)); }
  std::string Name(std::string_view suffix) const { return architecture_ + "." + std::string(suffix); }

  // The number at `suffix`, in [min, max]; `absent` if there is no such key (no value: the key is required).
  Result<std::int64_t> Int(std::string_view suffix, std::int64_t min, std::int64_t max,
                           std::optional<std::int64_t> absent) const {
    const GgufValue* value = Find(suffix);
    if (value == nullptr) {
      if (absent) return *absent;
      return Corrupt("the metadata key " + Printable(Name(suffix)) + " is absent");
    }
    return Bounded(suffix, value->AsInt(), min, max);
  }

  // One number a layer: from an array of at least `n_layer` numbers, or one number for all; `absent` as it is given.
  Result<std::vector<std::int64_t>> PerLayer(std::string_view suffix, std::int64_t n_layer, std::int64_t max,
                                             std::vector<std::int64_t> absent) const {
    const GgufValue* value = Find(suffix);
    if (value == nullptr) return absent;
    std::vector<std::int64_t> out(static_cast<std::size_t>(n_layer));
    const GgufArray* array = value->AsArray();
    if (array != nullptr && array->count < out.size()) {
      return Corrupt("the metadata key " + Printable(Name(suffix)) + " has " + std::to_string(array->count) +
                     " elements for " + std::to_string(n_layer) + " layers");
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      SHOAL_ASSIGN_OR_RETURN(out[i], Bounded(suffix, array != nullptr ? ArrayInt(*array, i) : value->AsInt(), 0, max));
    }
    return out;
  }

 private:
  Result<std::int64_t> Bounded(std::string_view suffix, std::optional<std::int64_t> v, std::int64_t min,
                               std::int64_t max) const {
    const std::string name = Printable(Name(suffix));
    if (!v) return Corrupt("the metadata key " + name + " is not a whole number");
    if (*v < min || *v > max) {
      return Corrupt("the metadata key " + name + " is " + std::to_string(*v) + ", expected " + std::to_string(min) +
                     " to " + std::to_string(max));
    }
    return *v;
  }

  const Gguf& gguf_;
  std::string architecture_;
};

constexpr std::array<std::string_view, 6> kRecurrentArchitectures = {"mamba",      "mamba2", "rwkv6",
                                                                     "rwkv6qwen2", "rwkv7",  "arwkv7"};
// Attention and recurrent layers, or both in one layer.
constexpr std::array<std::string_view, 18> kHybridArchitectures = {
    "jamba",      "falcon-h1",      "plamo2",    "granitehybrid", "lfm2",        "lfm2moe",
    "nemotron_h", "nemotron_h_moe", "qwen3next", "kimi-linear",   "bailingmoe3", "kimi-k3",
    "glm5-next",  "qwen35",         "qwen35moe", "qwen4exp",      "deepseek4",   "minimax-01"};
// Every k-th layer has attention, the others a recurrent state, unless a key lists them.
constexpr std::array<std::string_view, 5> kIntervalArchitectures = {"qwen3next", "qwen35", "qwen35moe", "qwen4exp",
                                                                    "minimax-01"};
constexpr std::array<std::string_view, 9> kEncoderArchitectures = {"bert",           "modern-bert", "nomic-bert",
                                                                   "nomic-bert-moe", "neo-bert",    "jina-bert-v2",
                                                                   "jina-bert-v3",   "eurobert",    "t5encoder"};

// Which layers keep a recurrent state instead of keys and values, beyond those with no KV heads.
Result<std::vector<std::int64_t>> RecurrentLayers(const Keys& keys, std::string_view architecture,
                                                  std::int64_t n_layer) {
  const auto n = static_cast<std::size_t>(n_layer);
  if (Contains(kRecurrentArchitectures, architecture)) return std::vector<std::int64_t>(n, 1);

  std::vector<std::int64_t> pattern(n, 0);
  if (!Contains(kIntervalArchitectures, architecture)) return pattern;
  const std::int64_t usual = architecture == "minimax-01" ? 8 : 4;
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t interval, keys.Int("full_attention_interval", 1, kLayersMax, usual));
  for (std::size_t i = 0; i < n; ++i) { pattern[i] = (static_cast<std::int64_t>(i) + 1) % interval != 0 ? 1 : 0; }
  return keys.PerLayer("attention.recurrent_layers", n_layer, std::numeric_limits<std::uint32_t>::max(), pattern);
}

// Layers from this one on reuse the keys and values of earlier ones.
Result<std::int64_t> FirstLayerWithoutKv(const Keys& keys, std::string_view architecture, std::int64_t n_layer) {
  if (architecture == "gemma3n") return std::min<std::int64_t>(20, n_layer);
  if (architecture != "gemma4") return n_layer;
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t shared, keys.Int("attention.shared_kv_layers", 0, n_layer, 0));
  return n_layer - shared;
}

// Widths of one head's key and value.
struct HeadWidths {
  std::int64_t full = 0;
  std::int64_t sliding = 0;
  std::vector<std::int64_t> is_sliding;  // per layer; empty if unknown
  std::int64_t indexer = 0;              // the one more head of layers with an indexer (sparse attention)
  std::int64_t At(std::size_t layer) const {
    if (is_sliding.empty()) return std::max(full, sliding);
    return is_sliding[layer] != 0 ? sliding : full;
  }
};

Result<HeadWidths> ReadHeadWidths(const Keys& keys, std::int64_t n_layer, std::int64_t default_width) {
  // With multi-head latent attention the values are a view of the cached keys.
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t k_mla, keys.Int("attention.key_length_mla", 0, kHeadWidthMax, 0));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t v_mla, keys.Int("attention.value_length_mla", 0, kHeadWidthMax, 0));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t k, keys.Int("attention.key_length", 0, kHeadWidthMax, default_width));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t v, keys.Int("attention.value_length", 0, kHeadWidthMax, default_width));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t k_swa, keys.Int("attention.key_length_swa", 0, kHeadWidthMax, k));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t v_swa, keys.Int("attention.value_length_swa", 0, kHeadWidthMax, v));
  const bool latent = k_mla != 0 && v_mla != 0;
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t indexer, keys.Int("attention.indexer.key_length", 0, kHeadWidthMax, 0));
  HeadWidths widths;
  widths.indexer = indexer + (latent ? 0 : v);
  widths.full = k + (latent ? 0 : v);
  widths.sliding = k_swa + (latent ? 0 : v_swa);
  const GgufValue* pattern = keys.Find("attention.sliding_window_pattern");
  if (pattern != nullptr && pattern->AsArray() != nullptr && widths.full != widths.sliding) {
    SHOAL_ASSIGN_OR_RETURN(widths.is_sliding, keys.PerLayer("attention.sliding_window_pattern", n_layer,
                                                            std::numeric_limits<std::uint32_t>::max(), {}));
  }
  return widths;
}

// Sets n_head and kv_elements. `has_indexer`: per layer.
Status ReadAttention(const Keys& keys, const std::vector<bool>& has_indexer, ModelInfo& info) {
  const auto n = static_cast<std::size_t>(info.n_layer);
  SHOAL_ASSIGN_OR_RETURN(const auto heads, keys.PerLayer("attention.head_count", info.n_layer, kHeadsMax,
                                                         std::vector<std::int64_t>(n, 0)));
  SHOAL_ASSIGN_OR_RETURN(const auto kv_heads, keys.PerLayer("attention.head_count_kv", info.n_layer, kHeadsMax, heads));
  SHOAL_ASSIGN_OR_RETURN(const auto recurrent, RecurrentLayers(keys, info.architecture, info.n_layer));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t kv_end, FirstLayerWithoutKv(keys, info.architecture, info.n_layer));
  info.n_head = static_cast<std::int32_t>(*std::max_element(heads.begin(), heads.end()));
  // Layer 0 may be one without attention, then the first layer that has heads tells.
  const auto first = std::find_if(heads.begin(), heads.end(), [](std::int64_t h) { return h > 0; });
  const std::int64_t default_width = first == heads.end() ? 0 : info.n_embd / *first;
  SHOAL_ASSIGN_OR_RETURN(const HeadWidths widths, ReadHeadWidths(keys, info.n_layer, default_width));

  info.kv_elements.assign(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    if (recurrent[i] != 0 || kv_heads[i] == 0 || static_cast<std::int64_t>(i) >= kv_end) continue;
    const std::int64_t elements = kv_heads[i] * widths.At(i) + (has_indexer[i] ? widths.indexer : 0);
    if (elements > kKvElementsMax)
      return Corrupt("layer " + std::to_string(i) + " has keys and values of absurd width");
    info.kv_elements[i] = static_cast<std::uint32_t>(elements);
  }
  return {};
}

// The layer index of "blk.<i>.…": empty for other names; -1 for an index that is no plain number.
std::optional<std::int64_t> LayerOf(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::int32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool plain = error == std::errc() && end != name.data() + name.size() && *end == '.' && layer >= 0 &&
                     (name[0] != '0' || end == name.data() + 1);
  return plain ? layer : -1;
}

// A tensor that only layers with a recurrent state have: Mamba and linear attention, RWKV, LFM2.
bool IsRecurrentTensor(std::string_view name) {
  return name.find(".ssm_") != name.npos || name.find(".time_mix_") != name.npos ||
         name.find(".shortconv.") != name.npos;
}

std::uint64_t Elements(const GgufTensor& tensor) {
  std::uint64_t n = 1;
  for (const std::uint64_t dim : tensor.dims) n *= dim;
  return n;
}

// Sets the sizes and `recurrent`; returns which layers have an indexer. `n_block` counts all layers with weights, those
// for multi-token prediction after the decoder's included.
Result<std::vector<bool>> ReadTensors(const Gguf& gguf, std::int64_t n_block, ModelInfo& info) {
  info.recurrent =
      Contains(kRecurrentArchitectures, info.architecture) || Contains(kHybridArchitectures, info.architecture);
  std::vector<bool> has_indexer(static_cast<std::size_t>(info.n_layer));
  info.layer_bytes.assign(static_cast<std::size_t>(info.n_layer), 0);
  std::map<std::uint32_t, std::uint64_t> bytes_by_type;
  bool any_layer = false;
  for (const GgufTensor& tensor : gguf.tensors) {
    bytes_by_type[tensor.type] += tensor.bytes;
    info.parameters += Elements(tensor);
    if (tensor.name.starts_with("token_embd.")) info.embedding_bytes += tensor.bytes;
    if (tensor.name.starts_with("output.") || tensor.name.starts_with("output_norm."))
      info.output_bytes += tensor.bytes;
    const auto layer = LayerOf(tensor.name);
    if (!layer) continue;
    if (*layer < 0 || *layer >= n_block) {
      return Corrupt("tensor " + Printable(tensor.name) + " belongs to no layer of 0 to " +
                     std::to_string(n_block - 1));
    }
    if (*layer >= info.n_layer) continue;
    any_layer = true;
    info.layer_bytes[static_cast<std::size_t>(*layer)] += tensor.bytes;
    if (IsRecurrentTensor(tensor.name)) info.recurrent = true;
    if (tensor.name.find(".indexer.") != tensor.name.npos) has_indexer[static_cast<std::size_t>(*layer)] = true;
  }
  if (!any_layer) return Error{ErrorCode::kUnsupported, "this file has no decoder layers: it is not a language model"};

  info.tied_output = gguf.FindTensor("output.weight") == nullptr;
  if (info.tied_output) info.output_bytes += info.embedding_bytes;
  const auto largest = std::max_element(bytes_by_type.begin(), bytes_by_type.end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto type = GetTensorTypeInfo(largest->first);
  info.quantization = type ? std::string(type->name) : "unknown";
  return has_indexer;
}

// Sets n_vocab. The embedding matrix is [n_embd, n_vocab].
Status ReadVocabulary(const Gguf& gguf, ModelInfo& info) {
  const GgufTensor* embedding = gguf.FindTensor("token_embd.weight");
  if (embedding == nullptr) return Corrupt("tensor token_embd.weight is absent");
  if (embedding->dims[0] != static_cast<std::uint64_t>(info.n_embd)) {
    return Corrupt("token_embd.weight has rows of " + std::to_string(embedding->dims[0]) + " elements, expected " +
                   std::to_string(info.n_embd));
  }
  std::uint64_t rows = embedding->dims.size() > 1 ? embedding->dims[1] : 0;
  if (rows == 0) {
    const GgufValue* tokens = gguf.Find("tokenizer.ggml.tokens");
    if (tokens != nullptr && tokens->AsArray() != nullptr) rows = tokens->AsArray()->count;
  }
  if (rows == 0 || rows > static_cast<std::uint64_t>(kVocabularyMax)) {
    return Corrupt("a vocabulary of " + std::to_string(rows) + " tokens");
  }
  info.n_vocab = static_cast<std::int32_t>(rows);
  return {};
}

std::string FileName(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  constexpr std::string_view kExtension = ".gguf";
  if (name.size() > kExtension.size() && name.ends_with(kExtension)) name.resize(name.size() - kExtension.size());
  return name;
}

// Refuses files that are GGUF but no whole language model.
Status CheckKind(const Gguf& gguf) {
  if (const std::int64_t parts = PartsOf(gguf); parts > 1) {
    return Error{ErrorCode::kUnsupported, "this is one of " + std::to_string(parts) +
                                              " parts of a split model; parts are named "
                                              "NAME-00001-of-00003.gguf, and lie beside each other"};
  }
  const GgufValue* type = gguf.Find("general.type");
  const std::string* kind = type == nullptr ? nullptr : type->AsString();
  if (kind != nullptr && (*kind == "adapter" || *kind == "mmproj" || *kind == "imatrix")) {
    return Error{ErrorCode::kUnsupported, "this GGUF is of type '" + *kind + "', not a language model"};
  }
  return {};
}

}  // namespace

Result<KvType> ParseKvType(std::string_view name) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    if (name == KvTypeName(type)) return type;
  }
  return Error{ErrorCode::kInvalidArgument, "unknown KV type '" + Printable(name) + "'; choose f16 or q8_0"};
}

std::string_view KvTypeName(KvType type) { return type == KvType::kF16 ? "f16" : "q8_0"; }

std::uint64_t ModelInfo::KvBytesPerToken(LayerRange layers, KvType type) const {
  SHOAL_CHECK(layers.first >= 0 && layers.first <= layers.last && layers.last <= n_layer);
  std::uint64_t bytes = 0;
  for (std::int32_t i = layers.first; i < layers.last; ++i) {
    const std::uint64_t elements = kv_elements[static_cast<std::size_t>(i)];
    // q8_0: 34 bytes for each 32 elements.
    bytes += type == KvType::kF16 ? elements * 2 : (elements + 31) / 32 * 34;
  }
  return bytes;
}

std::uint64_t ModelInfo::StageWeightBytes(LayerRange layers) const {
  SHOAL_CHECK(layers.first >= 0 && layers.first <= layers.last && layers.last <= n_layer);
  std::uint64_t bytes = layers.last == n_layer ? output_bytes : 0;
  for (std::int32_t i = layers.first; i < layers.last; ++i) bytes += layer_bytes[static_cast<std::size_t>(i)];
  return bytes;
}

Result<ModelInfo> DescribeModel(const Gguf& gguf, const std::string& path) {
  SHOAL_RETURN_IF_ERROR(CheckKind(gguf));
  const GgufValue* architecture = gguf.Find("general.architecture");
  if (architecture == nullptr || architecture->AsString() == nullptr || architecture->AsString()->empty() ||
      architecture->AsString()->size() > kNameBytesMax) {
    return Corrupt("the metadata key general.architecture is absent or not a name");
  }
  ModelInfo info;
  info.path = path;
  info.file_bytes = gguf.file_bytes;
  info.architecture = Printable(*architecture->AsString());
  const GgufValue* name = gguf.Find("general.name");
  const bool named = name != nullptr && name->AsString() != nullptr && !name->AsString()->empty();
  info.name = Printable(named ? *name->AsString() : FileName(path));
  if (Contains(kEncoderArchitectures, info.architecture)) {
    return Error{ErrorCode::kUnsupported, "architecture '" + info.architecture +
                                              "' is an encoder: it has no decoder "
                                              "layers and generates no text"};
  }

  const Keys keys(gguf, *architecture->AsString());
  // A projector or a vocabulary has no blocks at all: that is no damage.
  if (keys.Find("block_count") == nullptr && gguf.FindTensor("token_embd.weight") == nullptr) {
    return Error{ErrorCode::kUnsupported, "this file has no decoder layers: it is not a language model"};
  }
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t n_block, keys.Int("block_count", 1, kLayersMax, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t n_predict, keys.Int("nextn_predict_layers", 0, n_block - 1, 0));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t n_embd, keys.Int("embedding_length", 1, kEmbeddingMax, std::nullopt));
  constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t n_ctx, keys.Int("context_length", 1, kInt32Max, std::nullopt));
  SHOAL_ASSIGN_OR_RETURN(const std::int64_t n_expert, keys.Int("expert_count", 0, 65536, 0));
  info.n_layer = static_cast<std::int32_t>(n_block - n_predict);
  info.n_embd = static_cast<std::int32_t>(n_embd);
  info.n_ctx_train = static_cast<std::int32_t>(n_ctx);
  info.n_expert = static_cast<std::int32_t>(n_expert);
  SHOAL_ASSIGN_OR_RETURN(const std::vector<bool> has_indexer, ReadTensors(gguf, n_block, info));
  SHOAL_RETURN_IF_ERROR(ReadVocabulary(gguf, info));
  SHOAL_RETURN_IF_ERROR(ReadAttention(keys, has_indexer, info));
  return info;
}

}  // namespace shoal
