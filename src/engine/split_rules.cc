// Applies the table of architectures to one model: where it may be cut, into which stages. See split_rules.h.
//
// shard_metadata.cc mends the metadata of a shard; both read the model through split_rules_model.h.
#include "engine/split_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/split_rules_model.h"

namespace shoal {
namespace {

Error Unsupported(std::string message) { return {ErrorCode::kUnsupported, std::move(message)}; }
Error Invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

std::string Text(LayerRange layers) {
  return "layers " + std::to_string(layers.first) + "-" + std::to_string(layers.last - 1);
}

// Why this model can only run whole, whatever the cut; empty if it can be cut.
std::string WholeReason(const SplitModel& model) {
  if (model.entry() == nullptr) {
    for (const WholeEntry& whole : WholeTable()) {
      if (whole.architecture == model.architecture()) {
        return "the architecture " + model.architecture() + " cannot be cut: " + std::string(whole.reason);
      }
    }
    return "the architecture " + model.architecture() + " has not been shown to give the same results when it is cut";
  }
  if (model.n_layer() < 2) return "the model has one layer";
  if (model.IsSpecialCount(model.n_layer())) {
    return "libllama knows " + model.architecture() + " models of " + std::to_string(model.n_layer()) +
           " layers by that number, and treats them in a special way";
  }
  if (model.Int("num_loops", 1) > 1) return "its layers run several times over, in a loop";
  if (model.architecture() == "llama4" && model.Int("attention.sliding_window", 1) == 0) {
    return "without attention chunks libllama gives the last layer of the model no position";
  }
  if (model.architecture() == "glm-dsa" && model.Find("attention.indexer.types") == nullptr &&
      model.Int("context_length", 0) >= kGlmSharedIndexerContext) {
    return "the file does not say which layers share an indexer";
  }
  return {};
}

// Why no stage may start at `layer`; empty if one may.
std::string CutProblem(const SplitModel& model, std::int32_t layer) {
  if (layer == 0) return {};
  if (layer >= model.n_layer())
    return "the layers from " + std::to_string(model.n_layer()) + " on are prediction heads";
  if (layer % model.CutMultiple() != 0) {
    return "this architecture has a pattern of layers, so cuts are at multiples of " +
           std::to_string(model.CutMultiple());
  }
  if (model.entry()->shared_indexers && model.Value("attention.indexer.types", layer, 1) == 0) {
    return "layer " + std::to_string(layer) + " uses the indexer of a layer before it";
  }
  if (model.entry()->recurrent != RecurrentRule::kNoKvHeads && model.entry()->recurrent != RecurrentRule::kNoKvNoFfn &&
      model.IsArray("attention.head_count") && model.Value("attention.head_count", layer, 1) == 0) {
    return "layer " + std::to_string(layer) + " has no attention, and libllama reads head sizes from a stage's first";
  }
  return {};
}

// What `layers` lack to be a stage; empty if they can be one.
std::string StageProblem(const SplitModel& model, LayerRange layers) {
  for (const std::int32_t cut : {layers.first, layers.last}) {
    if (cut == model.n_layer_all()) continue;
    if (std::string problem = CutProblem(model, cut); !problem.empty()) return problem;
  }
  const std::int32_t last = std::min(layers.last, model.n_layer());
  if (model.IsSpecialCount(last - layers.first)) {
    return "libllama takes a model of " + std::to_string(last - layers.first) + " layers for another kind";
  }
  const auto any = [&](auto has) {
    for (std::int32_t i = layers.first; i < last; ++i) {
      if (has(i)) return true;
    }
    return false;
  };
  if (model.HasWindows() && !any([&](std::int32_t i) { return model.IsWindow(i); })) {
    return Text(layers) + " have no sliding-window layer, which every stage of this model needs";
  }
  if (model.IsHybrid() && !any([&](std::int32_t i) { return model.IsRecurrent(i); })) {
    return Text(layers) + " have no recurrent layer, which every stage of this model needs";
  }
  if (model.IsHybrid() && !any([&](std::int32_t i) { return model.IsAttention(i); })) {
    return Text(layers) + " have no attention layer, which every stage of this model needs";
  }
  return {};
}

std::string CutsText(const std::vector<std::int32_t>& cuts) {
  if (cuts.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < cuts.size();) {
    std::size_t end = i;
    while (end + 1 < cuts.size() && cuts[end + 1] == cuts[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(cuts[i]);
    if (end > i) text += (end == i + 1 ? ", " : "-") + std::to_string(cuts[end]);
    i = end + 1;
  }
  return text;
}

std::vector<std::int32_t> AllowedCuts(const SplitModel& model) {
  std::vector<std::int32_t> cuts;
  for (std::int32_t cut = 1; cut < model.n_layer(); ++cut) {
    if (StageProblem(model, {0, cut}).empty() && StageProblem(model, {cut, model.n_layer_all()}).empty()) {
      cuts.push_back(cut);
    }
  }
  return cuts;
}

// Finds the partition of layers into `n` allowed stages that the score of split_rules.h likes best.
class Balancer {
 public:
  Balancer(const SplitModel& model, std::int32_t n) : model_(model), n_(n), prefix_(1, 0.0) {
    for (const std::uint64_t bytes : model.info().layer_bytes) {
      prefix_.push_back(prefix_.back() + std::max<double>(1.0, static_cast<double>(bytes)));
    }
    prefix_.resize(static_cast<std::size_t>(model.n_layer_all()) + 1, prefix_.back());
  }

  // Empty if there is none.
  std::vector<LayerRange> Best() {
    FillHeads();
    const std::int32_t layers = model_.n_layer_all();
    const double total = Work({0, layers});
    const auto head = static_cast<double>(model_.info().output_bytes);
    double best = std::numeric_limits<double>::infinity();
    std::int32_t best_cut = -1;
    for (std::int32_t cut = layers - 1; cut > 0; --cut) {
      const double before = At(n_ - 1, cut).slowest;
      if (!std::isfinite(before) || !StageProblem(model_, {cut, layers}).empty()) continue;
      const double last = Work({cut, layers});
      const double score = std::max(before, last) / total + std::max(before, last + head) / (total + head);
      if (score < best) {
        best = score;
        best_cut = cut;
      }
    }
    if (best_cut < 0) return {};
    std::vector<LayerRange> stages{{best_cut, layers}};
    for (std::int32_t k = n_ - 1, end = best_cut; k > 0; --k) {
      const std::int32_t first = At(k, end).first;
      stages.push_back({first, end});
      end = first;
    }
    std::reverse(stages.begin(), stages.end());
    return stages;
  }

 private:
  struct Cell {
    double slowest = std::numeric_limits<double>::infinity();
    std::int32_t first = -1;  // of the last of the k stages
  };

  double Work(LayerRange layers) const {
    return prefix_[static_cast<std::size_t>(layers.last)] - prefix_[static_cast<std::size_t>(layers.first)];
  }
  // Layers [0, end) in k stages.
  Cell& At(std::int32_t k, std::int32_t end) {
    return cells_[static_cast<std::size_t>(k) * prefix_.size() + static_cast<std::size_t>(end)];
  }

  void FillHeads() {
    cells_.assign(static_cast<std::size_t>(n_) * prefix_.size(), {});
    At(0, 0) = {0.0, 0};
    for (std::int32_t end = 1; end < model_.n_layer(); ++end) {
      for (std::int32_t first = 0; first < end; ++first) {
        if (!StageProblem(model_, {first, end}).empty()) continue;
        const double work = Work({first, end});
        for (std::int32_t k = 1; k < n_; ++k) {
          const double slowest = std::max(At(k - 1, first).slowest, work);
          if (slowest < At(k, end).slowest) At(k, end) = {slowest, first};
        }
      }
    }
  }

  const SplitModel& model_;
  std::int32_t n_;
  std::vector<double> prefix_;  // work of layers [0, i)
  std::vector<Cell> cells_;
};

}  // namespace

SplitRules RulesFor(const ModelFile& file) {
  const SplitModel model(file);
  SplitRules rules;
  const bool recurrent =
      file.info.recurrent || (model.entry() != nullptr && model.entry()->recurrent != RecurrentRule::kNone);
  rules.one_sequence_per_batch = recurrent;
  rules.rewindable = !recurrent;
  rules.reason = WholeReason(model);
  if (!rules.reason.empty()) return rules;
  rules.cuts = AllowedCuts(model);
  rules.splittable = !rules.cuts.empty();
  if (!rules.splittable) rules.reason = "no cut leaves both stages the kinds of layers that they need";
  return rules;
}

InputRule InputRuleFor(const ModelFile& file) {
  const SplitModel model(file);
  InputRule rule;
  const auto root = std::sqrt(static_cast<float>(file.info.n_embd));
  // Not cut, but run through embedded inputs all the same.
  if (model.architecture() == "gemma-embedding") rule.token_scale = root;
  if (model.entry() == nullptr) {
    rule.position_rows = model.PositionRows();
    return rule;
  }
  if (model.entry()->scale == InputScale::kTokensOnly) rule.token_scale = root;
  if (model.entry()->scale == InputScale::kAnyInput) rule.hidden_scale = 1.0F / root;
  rule.position_rows = model.PositionRows();
  return rule;
}

Status CheckStage(const ModelFile& file, LayerRange layers) {
  const SplitModel model(file);
  if (layers.first < 0 || layers.count() < 1 || layers.last > model.n_layer_all()) {
    return Invalid("the model has layers 0-" + std::to_string(model.n_layer_all() - 1) + ", not " + Text(layers));
  }
  if (layers.count() == model.n_layer_all()) return {};
  if (std::string reason = WholeReason(model); !reason.empty()) {
    return Unsupported("this model must run whole, as one stage: " + reason);
  }
  if (std::string problem = StageProblem(model, layers); !problem.empty()) return Unsupported(std::move(problem));
  return {};
}

Status CheckStages(const ModelFile& file, const std::vector<LayerRange>& stages) {
  const SplitModel model(file);
  if (stages.empty()) return Invalid("at least one stage is needed");
  std::int32_t next = 0;
  for (const LayerRange& stage : stages) {
    if (stage.first != next || stage.count() < 1) {
      return Invalid("a stage must start at layer " + std::to_string(next) + " and have at least one layer");
    }
    next = stage.last;
  }
  if (next != model.n_layer_all()) {
    return Invalid("the stages end before layer " + std::to_string(next) + ", the model has " +
                   std::to_string(model.n_layer_all()) + " layers");
  }
  for (const LayerRange& stage : stages) {
    Status status = CheckStage(file, stage);
    if (status.ok()) continue;
    const SplitRules rules = RulesFor(file);
    if (!rules.splittable) return status;
    const std::int32_t cut = stage.first > 0 ? stage.first : stage.last;
    return Error{status.error().code, "no cut at layer " + std::to_string(cut) + ": " + status.error().message +
                                          " (cuts into two are allowed at: " + CutsText(rules.cuts) + ")"};
  }
  return {};
}

Result<std::vector<LayerRange>> BalancedStages(const ModelFile& file, std::int32_t n) {
  const SplitModel model(file);
  if (n < 1) return Invalid("at least one stage is needed");
  if (n == 1) return std::vector<LayerRange>{{0, model.n_layer_all()}};
  if (std::string reason = WholeReason(model); !reason.empty()) {
    return Unsupported("this model must run whole, as one stage: " + reason);
  }
  if (n > model.n_layer()) {
    return Invalid(std::to_string(n) + " stages are more than the model's " + std::to_string(model.n_layer()) +
                   " layers");
  }
  std::vector<LayerRange> stages = Balancer(model, n).Best();
  if (stages.empty()) {
    return Invalid("the model cannot be cut into " + std::to_string(n) +
                   " stages (cuts into two are allowed at: " + CutsText(AllowedCuts(model)) + ")");
  }
  return stages;
}

std::string_view HiddenTensorName(const ModelFile& file) {
  const ArchitectureEntry* entry = FindArchitecture(file.info.architecture);
  return entry != nullptr ? entry->hidden_tensor : "l_out";
}

std::vector<ArchitectureRule> SplittableArchitectures() {
  std::vector<ArchitectureRule> rules;
  for (const ArchitectureEntry& entry : ArchitectureTable()) rules.push_back({entry.architecture, NoteFor(entry)});
  return rules;
}

}  // namespace shoal
