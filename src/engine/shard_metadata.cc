// Mends a shard's metadata: what counted the model's layers counts the shard's. See RewriteMetadata in split_rules.h.
//
// Key names: llama.cpp's llama-arch.cpp.
#include <algorithm>
#include <array>
#include <vector>

#include "engine/split_rules.h"
#include "engine/split_rules_model.h"

namespace shoal {
namespace {

// Arrays of an architecture that do not go by layer, whatever their length.
constexpr std::array<std::string_view, 4> kNotPerLayer = {"rope.dimension_sections", "deepstack_mapping", "ple.",
                                                          "adapter."};
constexpr std::uint32_t kGatingSoftmax = 1, kGatingSigmoid = 2;
constexpr std::int64_t kGlmLiteVocabulary = 154880;

// Elements [first, first + count) of an array that has them.
GgufValue Slice(const GgufArray& array, std::uint64_t first, std::uint64_t count) {
  GgufArray slice;
  slice.type = array.type;
  slice.count = count;
  const auto at = [](std::uint64_t i) { return static_cast<std::ptrdiff_t>(i); };
  if (array.type == GgufType::kString) {
    slice.strings.assign(array.strings.begin() + at(first), array.strings.begin() + at(first + count));
  } else {
    const std::uint64_t bytes = GgufTypeBytes(array.type);
    slice.bytes.assign(array.bytes.begin() + at(first * bytes), array.bytes.begin() + at((first + count) * bytes));
  }
  GgufValue value;
  value.type = GgufType::kArray;
  value.value = std::move(slice);
  return value;
}

class Rewriter {
 public:
  Rewriter(const SplitModel& model, LayerRange layers, Gguf& shard) : model_(model), layers_(layers), shard_(shard) {}

  void Run() {
    SetU32("block_count", layers_.count());
    SliceArrays();
    WriteWindows();
    WriteRecurrentLayers();
    FillHeadCounts();
    ShiftLeadingDense();
    if (layers_.last < model_.n_layer_all() && model_.Find("nextn_predict_layers") != nullptr) {
      SetU32("nextn_predict_layers", 0);
    }
    // A later stage's input is no embedding: 0 tells libllama not to scale it. Some architectures scale by default.
    if (layers_.first > 0) shard_.Set(model_.Key("embedding_scale"), GgufValue::F32(0.0F));
    FixDeepSeek2();
  }

 private:
  void SetU32(std::string_view suffix, std::int64_t value) {
    shard_.Set(model_.Key(suffix), GgufValue::U32(static_cast<std::uint32_t>(value)));
  }

  void SliceArrays() {
    const std::string prefix = model_.Key("");
    for (auto& [key, value] : shard_.metadata) {
      const GgufArray* array = value.AsArray();
      if (array == nullptr || !key.starts_with(prefix)) continue;
      const std::string_view suffix = std::string_view(key).substr(prefix.size());
      if (std::ranges::any_of(kNotPerLayer, [&](std::string_view other) { return suffix.starts_with(other); }))
        continue;
      const bool all = array->count == static_cast<std::uint64_t>(model_.n_layer_all());
      if (!all && array->count != static_cast<std::uint64_t>(model_.n_layer())) continue;
      const std::int32_t last = all ? layers_.last : std::min(layers_.last, model_.n_layer());
      value =
          Slice(*array, static_cast<std::uint64_t>(layers_.first), static_cast<std::uint64_t>(last - layers_.first));
    }
  }

  void WriteWindows() {
    if (!model_.HasWindows()) return;
    std::vector<std::uint32_t> pattern;
    for (std::int32_t i = layers_.first; i < layers_.last; ++i) pattern.push_back(model_.IsWindow(i) ? 1 : 0);
    shard_.Set(model_.Key("attention.sliding_window_pattern"), GgufValue::ArrayU32(pattern));
  }

  void WriteRecurrentLayers() {
    if (model_.entry()->recurrent != RecurrentRule::kInterval) return;
    std::vector<std::uint32_t> pattern;
    for (std::int32_t i = layers_.first; i < layers_.last; ++i) pattern.push_back(model_.IsRecurrent(i) ? 1 : 0);
    shard_.Set(model_.Key("attention.recurrent_layers"), GgufValue::ArrayU32(pattern));
  }

  // libllama takes head sizes from the first layer's head count. Recurrent layers may have 0 there, which nothing else
  // reads: they get the model's.
  void FillHeadCounts() {
    const RecurrentRule rule = model_.entry()->recurrent;
    if (rule != RecurrentRule::kNoKvHeads && rule != RecurrentRule::kNoKvNoFfn) return;
    constexpr std::string_view kHeads = "attention.head_count";
    if (!model_.IsArray(kHeads)) return;
    std::int64_t usual = 0;
    for (std::int32_t i = 0; i < model_.n_layer() && usual == 0; ++i) usual = model_.Value(kHeads, i, 0);
    std::vector<std::uint32_t> heads;
    for (std::int32_t i = layers_.first; i < layers_.last; ++i) {
      const std::int64_t own = model_.Value(kHeads, i, 0);
      heads.push_back(static_cast<std::uint32_t>(own != 0 ? own : usual));
    }
    shard_.Set(model_.Key(kHeads), GgufValue::ArrayU32(heads));
  }

  void ShiftLeadingDense() {
    constexpr std::string_view kDense = "leading_dense_block_count";
    if (model_.Find(kDense) == nullptr) return;
    SetU32(kDense, std::clamp<std::int64_t>(model_.Int(kDense, 0) - layers_.first, 0, layers_.count()));
  }

  // libllama tells variants of DeepSeek 2 apart by layer count and vocabulary: a shard says what it is.
  void FixDeepSeek2() {
    if (model_.architecture() != "deepseek2" && model_.architecture() != "mistral4") return;
    if (model_.IsLite()) SetU32("attention.q_lora_rank", 0);
    if (model_.Int("expert_gating_func", 0) == 0) {
      const bool glm_lite =
          (model_.n_layer() == 47 || model_.n_layer() == 48) && model_.info().n_vocab == kGlmLiteVocabulary;
      SetU32("expert_gating_func", glm_lite ? kGatingSigmoid : kGatingSoftmax);
    }
  }

  const SplitModel& model_;
  LayerRange layers_;
  Gguf& shard_;
};

}  // namespace

Status RewriteMetadata(const ModelFile& file, LayerRange layers, Gguf& shard) {
  SHOAL_CHECK(layers.first >= 0 && layers.count() > 0 && layers.last <= file.info.n_layer);
  SHOAL_RETURN_IF_ERROR(CheckStage(file, layers));
  const SplitModel model(file);
  // Images that are injected into later layers would widen the input rows; text is the same without.
  if (model.Int("n_deepstack_layers", 0) != 0) shard.Set(model.Key("n_deepstack_layers"), GgufValue::U32(0));
  shard.Remove(model.Key("deepstack_mapping"));
  if (layers.count() < model.n_layer_all()) Rewriter(model, layers, shard).Run();
  return {};
}

}  // namespace shoal
