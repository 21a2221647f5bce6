// A shard inside libllama: its model laid out without memory, and its context, for a dry run too that only counts.
//
// The one place that chooses libllama's parameters. Knows no batches; engine/libllama_engine.h runs them.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/cpu_kernels.h"
#include "engine/engine.h"
#include "engine/shard.h"
#include "llama.h"

namespace shoal {

struct LlamaModelFree {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct LlamaContextFree {
  void operator()(llama_context* context) const { llama_free(context); }
};
struct ThreadpoolFree {
  void operator()(ggml_threadpool* pool) const { FreeThreadpool(pool); }
};
using LlamaModelPtr = std::unique_ptr<llama_model, LlamaModelFree>;
using LlamaContextPtr = std::unique_ptr<llama_context, LlamaContextFree>;
using ThreadpoolPtr = std::unique_ptr<ggml_threadpool, ThreadpoolFree>;

// Reads the header only, and takes no memory for weights: engine/weight_loader.h brings them.
// Errors: kUnsupported (libllama refuses the model), kOutOfMemory, kIo, kNotFound.
Result<LlamaModelPtr> LayOutLlamaModel(const Shard& shard, const EngineOptions& options);

// Parameters of a context for these options, without callbacks.
llama_context_params LlamaContextParams(const EngineOptions& options, bool is_last);

// What libllama's own list of cells takes, besides the cells: also in a dry run.
std::uint64_t CellListBytes(const EngineOptions& options, bool has_sliding_window);

// Errors: kUnsupported (a KV type or attention that the model does not take), kOutOfMemory.
Result<LlamaContextPtr> MakeLlamaContext(llama_model* model, const llama_context_params& params);

// What a laid out model and its context would use.
EngineMemory MeasureMemory(const Shard& shard, const llama_context* context, const EngineOptions& options);

}  // namespace shoal
