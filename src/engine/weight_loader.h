// Brings a shard's weights to the tensors that libllama has laid out for it: takes the memory, reads, repacks.
//
// libllama's own loader works through the tensors one by one on one thread, each first read into fresh memory and then
// repacked into other fresh memory. Here all cores take pieces of a few hundred kilobytes, in the order of the file: a
// piece is still in the core's cache when it is repacked, and the memory it goes to is in huge pages where the system
// has them.
//
// The weights are copied, not mapped: a mapped file that somebody shortens ends the process, and under pressure a phone
// would read it again from flash for every token.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/shard.h"
#include "ggml-cpp.h"
#include "llama.h"

namespace shoal {

// The memory of a model's weights, which must outlive the model.
using WeightBuffers = std::vector<ggml_backend_buffer_ptr>;

inline constexpr int kLoadThreadsMax = 8;  // of one load, the caller's among them

// `model` was laid out from `shard` without memory (LayOutLlamaModel); afterwards it is as if libllama had loaded it.
// Reports to options.on_progress on the calling thread.
// Errors: kOutOfMemory, kCancelled, kCorrupt (the model wants what the shard has not), and as TensorReader::Read.
// Blocks while loading.
Result<WeightBuffers> LoadWeights(const Shard& shard, const EngineOptions& options, llama_model* model);

// How much of the loaded weights is in which of ggml's layouts: "75.2 MiB in CPU_REPACK, 16.9 MiB in CPU".
std::string WeightLayoutsText(const llama_model* model);

}  // namespace shoal
