// Opens the stages of a placement and wires them: head -> stage 0 -> ... -> last stage, all reporting to the head.
#include "node/placement.h"

#include <utility>

#include "base/log.h"
#include "base/units.h"
#include "device/available_memory.h"
#include "node/core_choice.h"
#include "transport/memory.h"

namespace shoal {
namespace {

// Frames that may wait between two stages: one being computed, one ready. More would only hide a slow stage.
constexpr std::size_t kStageLinkFramesMax = 4;
constexpr Epoch kFirstEpoch = 1;

// All stages together must fit before the first is loaded.
Status CheckMemory(const std::shared_ptr<const ModelFile>& model, const std::vector<EngineOptions>& stages,
                   std::uint64_t memory_bytes_max) {
  std::uint64_t total = 0;
  for (const EngineOptions& stage : stages) {
    SHOAL_ASSIGN_OR_RETURN(const EngineMemory memory, Engine::Plan(model, stage));
    total += memory.total();
  }
  const MemoryRoom room = MemoryRoomOf(memory_bytes_max);
  if (total <= room.bytes) return {};
  return Error{ErrorCode::kOutOfMemory,
               "needs " + FormatBytes(total) + " on all stages, " + FormatBytes(total - room.bytes) +
                   " more than the " + (room.is_what_is_available ? "available " : "limit of ") +
                   FormatBytes(room.bytes) + "; use a smaller context, fewer slots, or --kv q8_0"};
}

}  // namespace

Result<std::unique_ptr<Placement>> Placement::Open(Loop& loop, const std::shared_ptr<const ModelFile>& model,
                                                   const Stage::OpenVocabulary& vocabulary,
                                                   const PlacementOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const std::vector<LayerRange> ranges, ChooseStages(*model, options.stages));
  const std::size_t n = ranges.size();
  SHOAL_RETURN_IF_ERROR(CheckPlacement(options, model->info, n));

  std::unique_ptr<Placement> placement(new Placement);
  placement->ranges_ = ranges;
  placement->context_tokens_ = ContextTokens(options, model->info);

  std::vector<EngineOptions> engines;
  for (std::size_t i = 0; i < n; ++i) { engines.push_back(MakeEngineOptions(options, model->info, ranges[i], i, n)); }
  ChooseCores(ReadDeviceProfile(SystemFiles(), nullptr), options.threads > 0, engines);
  SHOAL_RETURN_IF_ERROR(CheckMemory(model, engines, options.memory_bytes_max));
  std::vector<std::unique_ptr<Stage>> stages;
  for (const EngineOptions& engine : engines) {
    const bool is_last = engine.layers.last == model->info.n_layer;
    SHOAL_ASSIGN_OR_RETURN(stages.emplace_back(), Stage::Open(model, engine, is_last ? vocabulary : nullptr));
  }

  std::vector<std::unique_ptr<FrameReceiver>> results;
  MemoryLink input = MakeMemoryLink(kPipelineLinkFramesMax);
  std::unique_ptr<FrameSender> to_first = std::move(input.sender);
  for (std::size_t i = 0; i < n; ++i) {
    MemoryLink next, result = MakeMemoryLink(kPipelineLinkFramesMax);
    results.push_back(std::move(result.receiver));
    if (i + 1 < n) next = MakeMemoryLink(kStageLinkFramesMax);
    const StageWorkerOptions worker{static_cast<StageIndex>(i), kFirstEpoch, options.wire_type};
    placement->workers_.push_back(std::make_unique<StageWorker>(std::move(stages[i]), worker, std::move(input.receiver),
                                                                std::move(next.sender), std::move(result.sender)));
    input = std::move(next);
  }
  placement->pipeline_ = std::make_unique<Pipeline>(
      loop,
      PipelineOptions{MakeScheduleOptions(options, *model, ranges, static_cast<std::int32_t>(n) + 1), kFirstEpoch,
                      [placement = placement.get()](const std::string& why) {
                        Log(LogLevel::kError, "node", "no request can be answered any more: " + why);
                        placement->broken_ = true;
                      }},
      std::move(to_first), std::move(results));
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
