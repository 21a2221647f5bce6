// Which tensors a shard gets, under which names, and where their bytes are. See docs/design of the engine: a shard is
// a smaller GGUF, so everything libllama wants must be there, but only what the shard computes with must be real.
#include "engine/shard.h"

#include <charconv>
#include <limits>
#include <optional>
#include <string_view>

#include "engine/split_rules.h"

namespace shoal {
namespace {

constexpr std::uint32_t kTypeF32 = 0, kTypeF16 = 1, kTypeQ4_0 = 2, kTypeIq1S = 19;  // ggml_type
constexpr std::size_t kTokenizerStringBytesMax = 256;

// One tensor of the shard and where its bytes come from: null for zeros.
struct Entry {
  GgufTensor tensor;
  const GgufTensor* source = nullptr;
};

// "blk.12.attn_q.weight" is layer 12, "attn_q.weight".
struct LayerName {
  std::int32_t layer;
  std::string_view rest;
};

std::optional<LayerName> ParseLayerName(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  std::int32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.' || layer < 0) return std::nullopt;
  return LayerName{layer, name.substr(static_cast<std::size_t>(end + 1 - name.data()))};
}

// The block types that take least memory for zeros with rows of `row` elements.
std::uint32_t CheapestType(std::uint64_t row) {
  return row % 256 == 0 ? kTypeIq1S : row % 32 == 0 ? kTypeQ4_0 : kTypeF16;
}

// Which dimension of a global tensor counts the vocabulary.
std::optional<std::size_t> VocabularyDimension(const GgufTensor& tensor, const ModelInfo& info) {
  const auto n_vocab = static_cast<std::uint64_t>(info.n_vocab);
  if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") return 1;
  if (tensor.name == "output.bias") return 0;
  if (info.n_vocab == info.n_embd) return std::nullopt;  // cannot tell
  for (std::size_t i = tensor.dims.size(); i-- > 0;) {
    if (tensor.dims[i] == n_vocab) return i;
  }
  return std::nullopt;
}

Entry ZeroEntry(const GgufTensor& tensor, const ModelInfo& info) {
  Entry entry{tensor, nullptr};
  if (const auto dimension = VocabularyDimension(tensor, info); dimension && *dimension < tensor.dims.size()) {
    entry.tensor.dims[*dimension] = kDummyVocabulary;
    entry.tensor.type = kTypeF32;
  }
  return entry;
}

class Builder {
 public:
  Builder(std::shared_ptr<const ModelFile> model, LayerRange layers, ShardHead head)
      : model_(std::move(model)),
        layers_(layers),
        is_first_(layers.first == 0),
        is_last_(layers.last == model_->info.n_layer),
        separate_head_(is_last_ && head == ShardHead::kSeparate) {}

  Result<Shard> Build() {
    SHOAL_RETURN_IF_ERROR(MakeMetadata());
    for (const GgufTensor& tensor : model_->gguf.tensors) SHOAL_RETURN_IF_ERROR(Add(tensor));
    if (separate_head_) SHOAL_RETURN_IF_ERROR(SeparateHead());
    return LayOut();
  }

 private:
  bool whole() const { return is_first_ && is_last_; }

  // The model's metadata without the tokenizer's tables and without what told of several files.
  Status MakeMetadata() {
    for (const auto& [key, value] : model_->gguf.metadata) {
      if (key.starts_with("split.")) continue;
      if (key.starts_with("tokenizer.")) {
        const std::string* text = value.AsString();
        if (value.AsArray() != nullptr || (text != nullptr && text->size() > kTokenizerStringBytesMax)) continue;
      }
      gguf_.metadata.emplace_back(key, value);
    }
    gguf_.alignment = model_->gguf.alignment;
    gguf_.Set("tokenizer.ggml.model", GgufValue::String("none"));
    const std::uint64_t n_vocab = is_last_ ? static_cast<std::uint64_t>(model_->info.n_vocab) : kDummyVocabulary;
    gguf_.Set(model_->info.architecture + ".vocab_size", GgufValue::U32(static_cast<std::uint32_t>(n_vocab)));
    return RewriteMetadata(*model_, layers_, gguf_);
  }

  Status Add(const GgufTensor& tensor) {
    if (tensor.name.starts_with("blk.")) {
      const auto name = ParseLayerName(tensor.name);
      if (!name) return Error{ErrorCode::kCorrupt, "the tensor " + tensor.name + " belongs to no layer"};
      // Layers beyond the last are extra prediction heads; they stay with a whole model only.
      if (whole() || (name->layer >= layers_.first && name->layer < layers_.last)) {
        Entry entry{tensor, &tensor};
        entry.tensor.name = "blk." + std::to_string(name->layer - layers_.first) + "." + std::string(name->rest);
        entries_.push_back(std::move(entry));
      }
      return {};
    }
    entries_.push_back(IsReal(tensor) ? Entry{tensor, &tensor} : DummyOf(tensor));
    return {};
  }

  // Whether a tensor outside the layers is used by this shard's part of the graph.
  bool IsReal(const GgufTensor& tensor) const {
    if (whole() || tensor.name.starts_with("rope")) return true;
    // Added to the input of every graph: zeros keep what arrives from the stage before as it is.
    if (tensor.name.starts_with("position_embd") || tensor.name.starts_with("token_types")) return is_first_;
    if (is_last_) return true;
    if (!is_first_ || tensor.name.starts_with("output")) return false;
    return !VocabularyDimension(tensor, model_->info);
  }

  Entry DummyOf(const GgufTensor& tensor) const {
    if (is_last_) return Entry{tensor, nullptr};
    return ZeroEntry(tensor, model_->info);
  }

  Status SeparateHead() {
    Entry* embedding = nullptr;
    bool has_output = false;
    for (Entry& entry : entries_) {
      if (entry.tensor.name == "token_embd.weight") embedding = &entry;
      if (entry.tensor.name == "output.weight") has_output = true;
    }
    if (embedding == nullptr || embedding->source == nullptr) {
      return Error{ErrorCode::kCorrupt, "the model has no token_embd.weight"};
    }
    const GgufTensor* source = embedding->source;
    embedding->source = nullptr;
    embedding->tensor.type = CheapestType(source->dims.empty() ? 0 : source->dims[0]);
    if (!has_output) {
      Entry output{*source, source};
      output.tensor.name = "output.weight";
      entries_.push_back(std::move(output));
    }
    return {};
  }

  Result<Shard> LayOut() {
    for (const Entry& entry : entries_) gguf_.tensors.push_back(entry.tensor);
    const std::uint64_t data_bytes = LayOutTensors(gguf_);
    Shard shard;
    shard.model = model_;
    shard.layers = layers_;
    shard.is_last = is_last_;
    shard.header = SerializeGguf(gguf_);
    shard.bytes = shard.header.size() + data_bytes;
    std::uint64_t at = shard.header.size();
    const auto pad_to = [&](std::uint64_t offset) {
      if (offset > at) shard.segments.push_back({at, offset - at, -1});
      at = offset;
    };
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const GgufTensor& tensor = gguf_.tensors[i];
      const GgufTensor* source = entries_[i].source;
      if (source != nullptr && source->bytes != tensor.bytes) {
        return Error{ErrorCode::kCorrupt, "the tensor " + source->name + " has an impossible size"};
      }
      pad_to(shard.header.size() + tensor.offset);
      const std::int64_t source_offset =
          source == nullptr ? -1 : static_cast<std::int64_t>(model_->gguf.data_offset + source->offset);
      const bool unread = separate_head_ && source == nullptr && tensor.name == "token_embd.weight";
      shard.tensors.push_back({tensor.name, tensor.bytes, source_offset, unread});
      if (tensor.bytes == 0) continue;
      shard.segments.push_back({at, tensor.bytes, source_offset});
      at += tensor.bytes;
      if (source != nullptr) shard.weight_bytes += tensor.bytes;
    }
    pad_to(shard.bytes);
    shard.bytes = at;
    return shard;
  }

  std::shared_ptr<const ModelFile> model_;
  LayerRange layers_;
  bool is_first_;
  bool is_last_;
  bool separate_head_;
  Gguf gguf_;
  std::vector<Entry> entries_;
};

// What is left of a model around one shard counts as one stage each: if those cannot be stages, no finer cut can.
Status CheckRange(const ModelFile& model, LayerRange layers) {
  const std::int32_t n_layer = model.info.n_layer;
  if (layers.first < 0 || layers.last > n_layer || layers.count() < 1) {
    return Error{ErrorCode::kInvalidArgument, "layers " + std::to_string(layers.first) + " to " +
                                                  std::to_string(layers.last) + " of a model with " +
                                                  std::to_string(n_layer)};
  }
  if (layers.count() == n_layer) return {};
  std::vector<LayerRange> stages;
  if (layers.first > 0) stages.push_back({0, layers.first});
  stages.push_back(layers);
  if (layers.last < n_layer) stages.push_back({layers.last, n_layer});
  return CheckStages(model, stages);
}

}  // namespace

Result<Shard> MakeShard(std::shared_ptr<const ModelFile> model, LayerRange layers, ShardHead head) {
  SHOAL_CHECK(model != nullptr);
  SHOAL_RETURN_IF_ERROR(CheckRange(*model, layers));
  return Builder(std::move(model), layers, head).Build();
}

Shard HeaderFile(std::shared_ptr<const ModelFile> model) {
  Shard shard;
  shard.layers = {0, model->info.n_layer};
  shard.is_last = true;
  shard.bytes = model->gguf.file_bytes;
  const std::uint64_t header = model->gguf.data_offset;
  shard.segments.push_back({0, header, 0});
  if (header < shard.bytes) shard.segments.push_back({header, shard.bytes - header, -1});
  shard.model = std::move(model);
  return shard;
}

}  // namespace shoal
