// Options of engines and scheduler, from those of a placement.
#include "node/stage_plan.h"

#include <algorithm>

#include "device/cpu_affinity.h"
#include "stage/stage.h"

namespace shoal {
namespace {

constexpr std::int32_t kContextTokensDefaultMax = 4096;
constexpr std::int32_t kDecodeGroupsMax = 16;  // more would only queue up in front of the slowest stage

}  // namespace

Result<std::vector<LayerRange>> ChooseStages(const ModelFile& model, const std::string& text) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<LayerRange> ranges, ParseStages(text, model.info.n_layer));
  const bool is_count = text.find_first_of("-,") == std::string::npos;
  if (is_count && ranges.size() > 1) { return BalancedStages(model, static_cast<std::int32_t>(ranges.size())); }
  SHOAL_RETURN_IF_ERROR(CheckStages(model, ranges));
  return ranges;
}

Status CheckPlacement(const PlacementOptions& options, const ModelInfo& model, std::size_t stages) {
  const auto in_range = [](const char* name, std::int64_t value, std::int64_t low, std::int64_t high) -> Status {
    if (value >= low && value <= high) return {};
    return Error{ErrorCode::kInvalidArgument, std::string(name) + " is " + std::to_string(value) + "; it must be " +
                                                  std::to_string(low) + " to " + std::to_string(high)};
  };
  SHOAL_RETURN_IF_ERROR(in_range("the context", options.context_tokens, 0, 1 << 20));
  SHOAL_RETURN_IF_ERROR(in_range("the number of slots", options.slots, 1, 256));
  SHOAL_RETURN_IF_ERROR(in_range("the queue", options.queue_max, 0, 1 << 16));
  SHOAL_RETURN_IF_ERROR(in_range("the micro-batch", options.micro_batch_tokens, 1, 4096));
  SHOAL_RETURN_IF_ERROR(in_range("the number of threads", options.threads, 0, 512));
  if (options.context_tokens > model.n_ctx_train && model.n_ctx_train > 0) {
    return Error{ErrorCode::kInvalidArgument, "a context of " + std::to_string(options.context_tokens) +
                                                  " tokens is more than the " + std::to_string(model.n_ctx_train) +
                                                  " that " + model.name + " was trained for"};
  }
  if (!options.cpus.empty() && options.cpus.size() != stages) {
    return Error{ErrorCode::kInvalidArgument, "cores are given for " + std::to_string(options.cpus.size()) +
                                                  " stages, but there are " + std::to_string(stages)};
  }
  return {};
}

std::int32_t ContextTokens(const PlacementOptions& options, const ModelInfo& model) {
  if (options.context_tokens > 0) return options.context_tokens;
  return model.n_ctx_train > 0 ? std::min(kContextTokensDefaultMax, model.n_ctx_train) : kContextTokensDefaultMax;
}

EngineOptions MakeEngineOptions(const PlacementOptions& options, const ModelInfo& model, LayerRange layers,
                                std::size_t index, std::size_t stages_here) {
  const std::int32_t context = ContextTokens(options, model);
  EngineOptions engine;
  engine.layers = layers;
  engine.kv_tokens_max = context;
  engine.sequences_max = options.slots;
  engine.batch_rows_max = std::min(options.micro_batch_tokens, context);
  engine.output_rows_max = std::min(options.slots, engine.batch_rows_max);
  engine.kv_type = options.kv_type;
  engine.flash_attention = options.flash_attention;
  engine.kv_shared = !options.reproducible;
  engine.threads =
      options.threads > 0 ? options.threads : std::max(1, AllowedCpuCount() / static_cast<std::int32_t>(stages_here));
  if (!options.cpus.empty()) engine.cpus = options.cpus[index];
  engine.yields = !options.reproducible;
  if (options.on_progress) {
    engine.on_progress = [report = options.on_progress, index](float fraction) { return report(index, fraction); };
  }
  return engine;
}

std::uint64_t SentBytes(const PlacementOptions& options, const ModelInfo& model, LayerRange layers) {
  if (layers.last == model.n_layer) return 0;
  const EngineOptions engine = MakeEngineOptions(options, model, layers, 0, 1);
  return Stage::SentBytesMax(engine, model.n_embd, options.wire_type, kSentBytesMax);
}

ScheduleOptions MakeScheduleOptions(const PlacementOptions& options, const ModelFile& model,
                                    const std::vector<LayerRange>& stages, std::int32_t in_flight_max) {
  const SplitRules rules = RulesFor(model);
  const EngineOptions engine = MakeEngineOptions(options, model.info, {0, 1}, 0, 1);
  ScheduleOptions schedule;
  schedule.stages = static_cast<std::int32_t>(stages.size());
  for (const LayerRange& layers : stages) schedule.stage_layers.push_back(layers.count());
  schedule.slots_max = options.slots;
  schedule.batch_rows_max = engine.batch_rows_max;
  schedule.batch_sequences_max = rules.one_sequence_per_batch || options.reproducible ? 1 : options.slots;
  schedule.output_rows_max = engine.output_rows_max;
  schedule.kv_tokens_max = engine.kv_tokens_max;
  schedule.kv_shared = engine.kv_shared;
  schedule.in_flight_max = in_flight_max;
  schedule.decode_groups_max = kDecodeGroupsMax;
  schedule.queue_max = options.queue_max;
  schedule.rewindable = rules.rewindable;
  schedule.reproducible = options.reproducible;
  return schedule;
}

}  // namespace shoal
