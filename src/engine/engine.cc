// Engine::Plan and Engine::Open: options checked, memory counted by a dry run of the same load, compared with what
// there is, and only then spent.
#include "engine/engine.h"

#include <algorithm>

#include "base/units.h"
#include "device/available_memory.h"
#include "device/cpu_affinity.h"
#include "engine/libllama_engine.h"
#include "engine/llama_shard.h"
#include "engine/shard.h"
#include "engine/weight_loader.h"

namespace shoal {
namespace {

constexpr std::int32_t kThreadsMax = 256;
constexpr std::int32_t kBatchRowsMax = 4096;
constexpr std::int32_t kKvTokensMax = 1 << 24;
constexpr std::int64_t kKvCellsMax = std::int64_t{1} << 30;  // over all sequences
constexpr std::int64_t kContextPad = 256;

Status CheckRange(const char* name, std::int64_t value, std::int64_t max) {
  if (value >= 1 && value <= max) return {};
  return Error{ErrorCode::kInvalidArgument,
               std::string(name) + " is " + std::to_string(value) + ", expected 1 to " + std::to_string(max)};
}

Status CheckOptions(const EngineOptions& options) {
  SHOAL_RETURN_IF_ERROR(CheckRange("kv_tokens_max", options.kv_tokens_max, kKvTokensMax));
  SHOAL_RETURN_IF_ERROR(CheckRange("sequences_max", options.sequences_max, kSequencesMax));
  SHOAL_RETURN_IF_ERROR(CheckRange("batch_rows_max", options.batch_rows_max, kBatchRowsMax));
  SHOAL_RETURN_IF_ERROR(CheckRange("output_rows_max", options.output_rows_max, options.batch_rows_max));
  SHOAL_RETURN_IF_ERROR(CheckRange("threads", options.threads, kThreadsMax));
  if (!options.kv_shared) {
    SHOAL_RETURN_IF_ERROR(CheckRange("kv_tokens_max * sequences_max",
                                     std::int64_t{options.kv_tokens_max} * options.sequences_max, kKvCellsMax));
  }
  if (options.kv_type == KvType::kQ8_0 && !options.flash_attention) {
    return Error{ErrorCode::kInvalidArgument, "a q8_0 KV cache needs flash attention"};
  }
  SHOAL_RETURN_IF_ERROR(CheckCpus(options.cpus));
  const std::vector<int> allowed = ProcessCpus();
  for (const int cpu : options.cpus) {
    if (!allowed.empty() && !std::binary_search(allowed.begin(), allowed.end(), cpu)) {
      return Error{ErrorCode::kInvalidArgument, "CPU " + std::to_string(cpu) + " is not there or not allowed"};
    }
  }
  return {};
}

Status CheckMemory(const EngineMemory& memory, const EngineOptions& options) {
  const std::uint64_t needed = memory.total() + options.other_bytes;
  const MemoryRoom room = MemoryRoomOf(options.memory_bytes_max);
  if (needed <= room.bytes) return {};
  return Error{ErrorCode::kOutOfMemory,
               "layers " + std::to_string(options.layers.first) + " to " + std::to_string(options.layers.last - 1) +
                   " need " + FormatBytes(needed) + " of memory (weights " + FormatBytes(memory.weight_bytes) +
                   ", KV cache " + FormatBytes(memory.kv_bytes) + ", compute " + FormatBytes(memory.compute_bytes) +
                   (options.other_bytes > 0 ? ", sent hidden states " + FormatBytes(options.other_bytes) : "") + "), " +
                   FormatBytes(room.bytes) + " are " + (room.is_what_is_available ? "available" : "allowed") + ": " +
                   FormatBytes(needed - room.bytes) + " are missing"};
}

// A dry run keeps libllama's list of cells, which for an absurd context is more than the machine has. So what is known
// without it is checked first. Half of the KV cache counts: its size by the header alone is an upper estimate.
Status CheckBeforeDryRun(const ModelFile& model, const Shard& shard, const EngineOptions& options) {
  const std::int64_t cells = (options.kv_tokens_max + kContextPad - 1) / kContextPad * kContextPad *
                             (options.kv_shared ? 1 : options.sequences_max);
  const bool sliding = model.gguf.Find(model.info.architecture + ".attention.sliding_window") != nullptr;
  EngineMemory memory;
  memory.weight_bytes = shard.weight_bytes;
  memory.compute_bytes = CellListBytes(options, sliding);
  const std::uint64_t kv_bytes =
      model.info.KvBytesPerToken(options.layers, options.kv_type) * static_cast<std::uint64_t>(cells);
  if (!model.info.recurrent) memory.kv_bytes = kv_bytes / 2;
  if (CheckMemory(memory, options).ok()) return {};
  memory.kv_bytes = kv_bytes;  // what the message should say
  return CheckMemory(memory, options);
}

// A shard laid out, and what it will use.
struct Plan {
  Shard shard;
  LlamaModelPtr model;
  EngineMemory memory;
};

Result<Plan> PlanShard(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options, ShardHead head) {
  SHOAL_ASSIGN_OR_RETURN(Shard shard, MakeShard(model, options.layers, head));
  SHOAL_RETURN_IF_ERROR(CheckBeforeDryRun(*model, shard, options));
  SHOAL_ASSIGN_OR_RETURN(LlamaModelPtr laid_out, LayOutLlamaModel(shard, options));
  SHOAL_ASSIGN_OR_RETURN(const LlamaContextPtr context,
                         MakeLlamaContext(laid_out.get(), LlamaContextParams(options, shard.is_last)));
  const EngineMemory memory = MeasureMemory(shard, context.get(), options);
  return Plan{std::move(shard), std::move(laid_out), memory};
}

Result<Plan> MakePlan(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options) {
  SHOAL_CHECK(model != nullptr);
  SHOAL_RETURN_IF_ERROR(CheckOptions(options));
  const bool is_last = options.layers.last == model->info.n_layer;
  if (!is_last) return PlanShard(model, options, ShardHead::kSeparate);
  // A model that cannot be cut takes tokens, and looks them up in its own matrix.
  if (!RulesFor(*model).splittable) return PlanShard(model, options, ShardHead::kAsStored);
  Result<Plan> separate = PlanShard(model, options, ShardHead::kSeparate);
  if (separate.ok() || separate.error().code != ErrorCode::kUnsupported) return separate;
  // Some architectures know no output matrix of their own; and if it was something else, this fails the same way.
  return PlanShard(model, options, ShardHead::kAsStored);
}

}  // namespace

Result<EngineMemory> Engine::Plan(const std::shared_ptr<const ModelFile>& model, const EngineOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const auto plan, MakePlan(model, options));
  return plan.memory;
}

Result<std::unique_ptr<Engine>> Engine::Open(std::shared_ptr<const ModelFile> model, const EngineOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(auto plan, MakePlan(model, options));
  SHOAL_RETURN_IF_ERROR(CheckMemory(plan.memory, options));
  SHOAL_ASSIGN_OR_RETURN(WeightBuffers weights, LoadWeights(plan.shard, options, plan.model.get()));
  return LibllamaEngine::Make(plan.shard, options, std::move(weights), std::move(plan.model), plan.memory.weight_bytes);
}

Result<std::vector<std::uint8_t>> Engine::ReadRows(SequenceId, Position, Position) {
  return Error{ErrorCode::kUnsupported, "this engine passes no rows on"};
}

Status Engine::WriteRows(SequenceId, Position, Position, std::span<const std::uint8_t>) {
  return Error{ErrorCode::kUnsupported, "this engine takes no rows"};
}

}  // namespace shoal
