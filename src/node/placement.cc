// Opens the stages of a placement and wires them: head -> stage 0 -> ... -> last stage, all reporting to the head.
#include "node/placement.h"

#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "base/units.h"
#include "engine/split_rules.h"
#include "transport/fan_in.h"
#include "transport/memory.h"

namespace shoal {
namespace {

constexpr std::int32_t kContextTokensDefaultMax = 4096;
// Frames that may wait between two stages: one being computed, one ready. More would only hide a slow stage.
constexpr std::size_t kStageLinkFramesMax = 4;
constexpr Epoch kFirstEpoch = 1;

// Cores that this process may use.
std::int32_t UsableCores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<std::int32_t>(std::thread::hardware_concurrency()));
}

// "3" is balanced by work; ranges are taken as written. Either way only where the architecture may be cut.
Result<std::vector<LayerRange>> ChooseStages(const ModelFile& model, const std::string& text) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<LayerRange> ranges, ParseStages(text, model.info.n_layer));
  const bool is_count = text.find_first_of("-,") == std::string::npos;
  if (is_count && ranges.size() > 1) { return BalancedStages(model, static_cast<std::int32_t>(ranges.size())); }
  SHOAL_RETURN_IF_ERROR(CheckStages(model, ranges));
  return ranges;
}

Status CheckOptions(const PlacementOptions& options, const ModelFile& model, std::size_t stages) {
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
  if (options.context_tokens > model.info.n_ctx_train && model.info.n_ctx_train > 0) {
    return Error{ErrorCode::kInvalidArgument, "a context of " + std::to_string(options.context_tokens) +
                                                  " tokens is more than the " + std::to_string(model.info.n_ctx_train) +
                                                  " that " + model.info.name + " was trained for"};
  }
  if (!options.cpus.empty() && options.cpus.size() != stages) {
    return Error{ErrorCode::kInvalidArgument, "cores are given for " + std::to_string(options.cpus.size()) +
                                                  " stages, but there are " + std::to_string(stages)};
  }
  return {};
}

EngineOptions StageEngineOptions(const PlacementOptions& options, LayerRange layers, std::size_t index,
                                 std::size_t stages, std::int32_t context) {
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
      options.threads > 0 ? options.threads : std::max(1, UsableCores() / static_cast<std::int32_t>(stages));
  if (!options.cpus.empty()) engine.cpus = options.cpus[index];
  if (options.on_progress) {
    engine.on_progress = [&options, index](float fraction) { return options.on_progress(index, fraction); };
  }
  return engine;
}

// All stages together must fit before the first is loaded.
Status CheckMemory(const std::shared_ptr<const ModelFile>& model, const std::vector<EngineOptions>& stages,
                   std::uint64_t memory_bytes_max) {
  std::uint64_t total = 0;
  for (const EngineOptions& stage : stages) {
    SHOAL_ASSIGN_OR_RETURN(const EngineMemory memory, Engine::Plan(model, stage));
    total += memory.total();
  }
  if (memory_bytes_max == 0 || total <= memory_bytes_max) return {};
  return Error{ErrorCode::kOutOfMemory, "needs " + FormatBytes(total) + " on all stages, " +
                                            FormatBytes(total - memory_bytes_max) + " more than the limit of " +
                                            FormatBytes(memory_bytes_max) +
                                            "; use a smaller context, fewer slots, or --kv q8_0"};
}

ScheduleOptions MakeScheduleOptions(const PlacementOptions& options, const SplitRules& rules,
                                    const EngineOptions& engine, std::size_t stages) {
  ScheduleOptions schedule;
  schedule.stages = static_cast<std::int32_t>(stages);
  schedule.slots_max = options.slots;
  schedule.batch_rows_max = engine.batch_rows_max;
  schedule.batch_sequences_max = rules.one_sequence_per_batch || options.reproducible ? 1 : options.slots;
  schedule.output_rows_max = engine.output_rows_max;
  schedule.kv_tokens_max = engine.kv_tokens_max;
  schedule.kv_shared = engine.kv_shared;
  schedule.in_flight_max = static_cast<std::int32_t>(stages) + 1;
  schedule.queue_max = options.queue_max;
  schedule.rewindable = rules.rewindable;
  schedule.reproducible = options.reproducible;
  return schedule;
}

}  // namespace

Result<std::unique_ptr<Placement>> Placement::Open(Loop& loop, std::shared_ptr<const ModelFile> model,
                                                   std::shared_ptr<const Vocabulary> vocabulary,
                                                   const PlacementOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const std::vector<LayerRange> ranges, ChooseStages(*model, options.stages));
  const std::size_t n = ranges.size();
  SHOAL_RETURN_IF_ERROR(CheckOptions(options, *model, n));
  const SplitRules rules = RulesFor(*model);

  std::unique_ptr<Placement> placement(new Placement);
  placement->ranges_ = ranges;
  placement->context_tokens_ =
      options.context_tokens > 0
          ? options.context_tokens
          : std::min(kContextTokensDefaultMax,
                     model->info.n_ctx_train > 0 ? model->info.n_ctx_train : kContextTokensDefaultMax);

  std::vector<EngineOptions> engines;
  for (std::size_t i = 0; i < n; ++i) {
    engines.push_back(StageEngineOptions(options, ranges[i], i, n, placement->context_tokens_));
  }
  SHOAL_RETURN_IF_ERROR(CheckMemory(model, engines, options.memory_bytes_max));
  std::vector<std::unique_ptr<Stage>> stages;
  for (const EngineOptions& engine : engines) {
    SHOAL_ASSIGN_OR_RETURN(stages.emplace_back(), Stage::Open(model, engine, vocabulary));
  }

  MemoryLink results = MakeMemoryLink(kPipelineLinkFramesMax);
  std::vector<std::unique_ptr<FrameSender>> result_senders = FanIn(std::move(results.sender), n);
  MemoryLink input = MakeMemoryLink(kPipelineLinkFramesMax);
  std::unique_ptr<FrameSender> to_first = std::move(input.sender);
  for (std::size_t i = 0; i < n; ++i) {
    MemoryLink next;
    if (i + 1 < n) next = MakeMemoryLink(kStageLinkFramesMax);
    const StageWorkerOptions worker{static_cast<StageIndex>(i), kFirstEpoch, options.wire_type};
    placement->workers_.push_back(std::make_unique<StageWorker>(std::move(stages[i]), worker, std::move(input.receiver),
                                                                std::move(next.sender), std::move(result_senders[i])));
    input = std::move(next);
  }
  placement->pipeline_ = std::make_unique<Pipeline>(
      loop, PipelineOptions{MakeScheduleOptions(options, rules, engines.front(), n), kFirstEpoch}, std::move(to_first),
      std::move(results.receiver));
  for (const auto& worker : placement->workers_) worker->Start();
  placement->pipeline_->Start();
  return placement;
}

Placement::~Placement() { Stop(); }

void Placement::Stop() {
  if (pipeline_ != nullptr) pipeline_->Stop();
  for (const auto& worker : workers_) worker->Stop();
}

std::vector<StageReport> Placement::Report() const {
  std::vector<StageReport> reports;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    const Engine& engine = workers_[i]->stage().engine();
    reports.push_back({ranges_[i], engine.memory(), engine.options().threads, workers_[i]->stats()});
  }
  return reports;
}

}  // namespace shoal
