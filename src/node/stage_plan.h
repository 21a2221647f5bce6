// From what was asked of a placement to the options of its stages' engines and of its scheduler. Pure but for the core
// count; the same for stages that share a process and for stages on different nodes, which must come to equal numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cluster/placement_record.h"
#include "engine/engine.h"
#include "engine/split_rules.h"
#include "schedule/scheduler.h"
#include "wire/tensor.h"

namespace shoal {

struct PlacementOptions {
  std::string stages = "1";         // "3", or ranges "0-9,10-19,20-29"
  std::int32_t context_tokens = 0;  // KV cells; 0: what the model was trained for, at most 4096
  std::int32_t slots = 8;           // generations that run at once
  std::int32_t queue_max = 64;      // more wait
  std::int32_t micro_batch_tokens = 64;
  std::int32_t threads = 0;            // of each stage; 0: the machine's cores shared out
  std::vector<std::vector<int>> cpus;  // of each stage; empty: the OS decides
  WireType wire_type = WireType::kF16;
  KvType kv_type = KvType::kF16;
  bool flash_attention = true;
  bool reproducible = false;           // a generation's tokens never depend on what else runs (slower)
  std::uint64_t memory_bytes_max = 0;  // all stages together; 0: what the machine has
  std::function<bool(std::size_t stage, float fraction)> on_progress;  // false cancels
};

// "3" is balanced by work; ranges are taken as written. Errors: as ParseStages, BalancedStages and CheckStages.
Result<std::vector<LayerRange>> ChooseStages(const ModelFile& model, const std::string& text);
// Errors: kInvalidArgument, naming the option and its range.
Status CheckPlacement(const PlacementOptions& options, const ModelInfo& model, std::size_t stages);
// Tokens of context: as asked, else as the model was trained for, at most 4096.
std::int32_t ContextTokens(const PlacementOptions& options, const ModelInfo& model);
// Of stage `index`. `stages_here`: how many stages share this machine's cores.
EngineOptions MakeEngineOptions(const PlacementOptions& options, const ModelInfo& model, LayerRange layers,
                                std::size_t index, std::size_t stages_here);
// Memory of a stage that a loss of the next shall not cost its work: for the hidden states it sent, as many as its KV
// cache has cells, within kSentBytesMax. 0 on the last stage.
std::uint64_t SentBytes(const PlacementOptions& options, const ModelInfo& model, LayerRange layers);
// Of the head. `in_flight_max`: stages + 1 keeps all stages busy; links with latency need more.
ScheduleOptions MakeScheduleOptions(const PlacementOptions& options, const ModelFile& model,
                                    const std::vector<LayerRange>& stages, std::int32_t in_flight_max);

}  // namespace shoal
