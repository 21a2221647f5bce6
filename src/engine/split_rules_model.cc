// Layer kinds by llama.cpp's load_arch_hparams of each architecture (src/models/). See split_rules_model.h.
#include "engine/split_rules_model.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace shoal {
namespace {

constexpr std::int32_t kIntervalUsual = 4;
constexpr std::int64_t kMultipleMax = 1 << 16;

std::string MakeNote(const ArchitectureEntry& entry) {
  std::string note = "every cut";
  if (!entry.multiple_key.empty()) {
    note = "multiples of " + (entry.multiple > 1 ? std::to_string(entry.multiple) + " and of " : std::string()) +
           std::string(entry.multiple_key);
  } else if (entry.multiple > 1) {
    note = "multiples of " + std::to_string(entry.multiple);
  }
  if (entry.window.when != WindowRule::When::kNever) note += "; each stage needs a sliding-window layer";
  if (entry.recurrent != RecurrentRule::kNone && entry.recurrent != RecurrentRule::kEvery) {
    note += "; each stage needs a recurrent and an attention layer";
  }
  if (entry.shared_indexers) note += "; not before a layer that shares an earlier layer's indexer";
  if (!entry.special_counts.empty()) {
    note +=
        entry.special_if_head_width ? "; whole only with a head width other than n_embd / n_head and " : "; not with ";
    for (std::size_t i = 0; i < entry.special_counts.size(); ++i) {
      note += (i == 0                                 ? ""
               : i + 1 == entry.special_counts.size() ? " or "
                                                      : ", ") +
              std::to_string(entry.special_counts[i]);
    }
    note += " layers";
  }
  if (entry.scale == InputScale::kAnyInput) note += "; to the bit if n_embd is a power of 4, else within rounding";
  return note;
}

}  // namespace

SplitModel::SplitModel(const ModelFile& file)
    : file_(file), entry_(FindArchitecture(file.info.architecture)), n_layer_(file.info.n_layer) {
  const std::int64_t extra = Int("nextn_predict_layers", 0);
  if (extra > 0 && extra < n_layer_) n_layer_ -= static_cast<std::int32_t>(extra);
}

bool SplitModel::IsArray(std::string_view suffix) const {
  const GgufValue* value = Find(suffix);
  return value != nullptr && value->AsArray() != nullptr;
}

std::int64_t SplitModel::Int(std::string_view suffix, std::int64_t absent) const {
  const GgufValue* value = Find(suffix);
  return value != nullptr ? value->AsInt().value_or(absent) : absent;
}

std::int64_t SplitModel::Value(std::string_view suffix, std::int32_t layer, std::int64_t absent) const {
  const GgufValue* value = Find(suffix);
  if (value == nullptr) return absent;
  if (const GgufArray* array = value->AsArray(); array != nullptr) {
    return ArrayInt(*array, static_cast<std::uint64_t>(layer)).value_or(absent);
  }
  return value->AsInt().value_or(absent);
}

std::int32_t SplitModel::CutMultiple() const {
  std::int64_t step = 1;
  if (!entry_->multiple_key.empty()) step = std::clamp<std::int64_t>(Int(entry_->multiple_key, 1), 1, kMultipleMax);
  return static_cast<std::int32_t>(std::lcm(static_cast<std::int64_t>(entry_->multiple), step));
}

bool SplitModel::IsSpecialCount(std::int32_t count) const {
  if (IsLite() || std::ranges::find(entry_->special_counts, count) == entry_->special_counts.end()) return false;
  if (!entry_->special_if_head_width) return true;
  const std::int64_t heads = Value("attention.head_count", 0, 0);
  return heads <= 0 || info().n_embd / heads != Int("attention.key_length", info().n_embd / heads);
}

// What libllama goes by is the layer count; what the weights say is the same, and holds for a shard too.
bool SplitModel::IsLite() const {
  if (architecture() != "deepseek2" && architecture() != "mistral4") return false;
  return file_.gguf.FindTensor("blk.0.attn_q.weight") != nullptr;
}

bool SplitModel::HasWindows() const {
  switch (entry_->window.when) {
    case WindowRule::When::kNever: return false;
    case WindowRule::When::kAlways: return true;
    case WindowRule::When::kIfWindow: return Int("attention.sliding_window", 0) > 0;
  }
  return false;
}

bool SplitModel::IsWindow(std::int32_t layer) const {
  if (layer >= n_layer_) return false;
  constexpr std::string_view kPattern = "attention.sliding_window_pattern";
  if (IsArray(kPattern)) return Value(kPattern, layer, 0) != 0;
  const std::int64_t period = Int(kPattern, entry_->window.period);
  if (period <= 0) return period == 0;
  return entry_->window.full_first ? layer % period != 0 : layer % period < period - 1;
}

bool SplitModel::IsHybrid() const {
  return entry_->recurrent != RecurrentRule::kNone && entry_->recurrent != RecurrentRule::kEvery;
}

bool SplitModel::IsRecurrent(std::int32_t layer) const {
  if (layer >= n_layer_) return false;
  const auto without_kv = [&] {
    return Value("attention.head_count_kv", layer, Value("attention.head_count", layer, 1)) == 0;
  };
  switch (entry_->recurrent) {
    case RecurrentRule::kNone: return false;
    case RecurrentRule::kEvery: return true;
    case RecurrentRule::kNoKvHeads: return without_kv();
    case RecurrentRule::kNoKvNoFfn: return without_kv() && Value("feed_forward_length", layer, 0) == 0;
    case RecurrentRule::kInterval: break;
  }
  if (Find("attention.recurrent_layers") != nullptr) return Value("attention.recurrent_layers", layer, 0) != 0;
  const std::int64_t interval = Int("full_attention_interval", kIntervalUsual);
  return interval <= 0 || (layer + 1) % interval != 0;
}

bool SplitModel::IsAttention(std::int32_t layer) const {
  if (layer >= n_layer_) return false;
  if (entry_->recurrent == RecurrentRule::kEvery) return true;
  if (entry_->recurrent == RecurrentRule::kNoKvNoFfn && Value("feed_forward_length", layer, 0) != 0) return false;
  return !IsRecurrent(layer);
}

std::int32_t SplitModel::PositionRows() const {
  // Runs whole only, but takes four positions all the same.
  if (entry_ == nullptr) return architecture() == "qwen4exp" || architecture() == "qwen3tts" ? 4 : 1;
  if (entry_->positions == PositionRule::kFour) return 4;
  if (entry_->positions == PositionRule::kOne) return 1;
  const GgufValue* sections = Find("rope.dimension_sections");
  const GgufArray* array = sections != nullptr ? sections->AsArray() : nullptr;
  const bool used = array != nullptr && ArrayInt(*array, 0).value_or(0) > 0 && ArrayInt(*array, 1).value_or(0) > 0;
  return used ? 4 : 1;
}

std::string_view NoteFor(const ArchitectureEntry& entry) {
  static const std::map<std::string_view, std::string> kNotes = [] {
    std::map<std::string_view, std::string> notes;
    for (const ArchitectureEntry& each : ArchitectureTable()) notes.emplace(each.architecture, MakeNote(each));
    return notes;
  }();
  return kNotes.find(entry.architecture)->second;
}

}  // namespace shoal
