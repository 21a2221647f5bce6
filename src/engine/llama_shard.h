// A shard inside libllama: the loaded model and its context, or a dry run of both that only counts memory.
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

// Loads the shard's weights, reporting to options.on_progress; with `dry_run` reads the header only and takes no memory
// for weights. Errors: kUnsupported (libllama refuses the model), kOutOfMemory, kCancelled, kIo, kNotFound.
// Blocks while loading.
Result<LlamaModelPtr> LoadLlamaModel(const Shard& shard, const EngineOptions& options, bool dry_run);

// Bytes that loading takes on top of what is used in the end: zero tensors, given back to the system after the load
// where it can be told to (Linux).
std::uint64_t TransientBytes(const Shard& shard);

// Parameters of a context for these options, without callbacks.
llama_context_params LlamaContextParams(const EngineOptions& options, bool is_last);

// What libllama's own list of cells takes, besides the cells: also in a dry run.
std::uint64_t CellListBytes(const EngineOptions& options, bool has_sliding_window);

// Errors: kUnsupported (a KV type or attention that the model does not take), kOutOfMemory.
Result<LlamaContextPtr> MakeLlamaContext(llama_model* model, const llama_context_params& params);

// What model and context use, or would use after a dry run.
EngineMemory MeasureMemory(const Shard& shard, const llama_context* context, const EngineOptions& options);

}  // namespace shoal
