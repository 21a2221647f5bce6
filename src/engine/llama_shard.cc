// libllama gets the header through a virtual file, and chooses the kind of memory of each tensor by it.
#include "engine/llama_shard.h"

#include <algorithm>
#include <array>
#include <new>
#include <optional>

// Upstream's staging header for what is not yet in llama.h: the memory breakdown.
#include "../src/llama-ext.h"
#include "engine/ggml_device.h"
#include "engine/llama_guard.h"
#include "engine/llama_log.h"
#include "engine/virtual_file.h"
#include "engine/weight_layouts.h"

namespace shoal {
namespace {

constexpr std::uint32_t kContextPad = 256;          // libllama rounds its cells up to this
constexpr std::uint64_t kGraphNodeBytes = 3 * 512;  // tensor structs of the graphs that a context keeps
constexpr std::uint64_t kGraphNodesMin = 1024, kGraphNodesPerTensor = 8;
// A cell's entry, and the tree nodes that list it as used by a sequence and its twin.
constexpr std::uint64_t kCellListBytes = 200;
constexpr std::uint64_t kWorkBytesPerThread = 1U << 20;

std::uint32_t PadContext(std::uint32_t cells) { return (cells + kContextPad - 1) / kContextPad * kContextPad; }

Error LoadError(const std::string& what, const LlamaErrors& errors) {
  const std::string text = errors.TextOr("no reason given");
  const bool memory =
      text.find("unable to allocate") != std::string::npos || text.find("failed to allocate") != std::string::npos;
  return {memory ? ErrorCode::kOutOfMemory : ErrorCode::kUnsupported, what + ": " + text};
}

// Of a device with memory of its own: a graphics card, a server. One that shares this machine's is counted.
bool HasOwnMemory(ggml_backend_buffer_type_t type) {
  ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
  return device != nullptr && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU;
}

std::uint64_t LongestRow(const llama_context* context, const Shard& shard) {
  std::uint64_t longest = static_cast<std::uint64_t>(llama_model_n_embd(llama_get_model(context)));
  for (const GgufTensor& tensor : shard.model->gguf.tensors) {
    if (tensor.name.starts_with("blk.") && !tensor.dims.empty()) longest = std::max(longest, tensor.dims[0]);
  }
  return longest;
}

// Layers and devices of `params`; `devices` outlives it.
Status ChooseDevices(const EngineOptions& options, std::array<ggml_backend_dev_t, 2>& devices,
                     llama_model_params& params) {
  // Named one by one: left to itself libllama takes every device that any backend has shown so far.
  params.devices = devices.data();
  params.use_extra_bufts = true;  // weights repacked for this CPU's kernels
  params.n_gpu_layers = 0;
  if (options.device.none()) return {};
  SHOAL_ASSIGN_OR_RETURN(ggml_backend_dev_t device, OpenGgmlDevice(options.device));
  // An accelerator (BLAS) takes part without holding layers, in what is multiplied by weights that lie as in the file.
  params.use_extra_bufts = ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_ACCEL;
  if (!params.use_extra_bufts) return {};
  const std::int32_t all = options.layers.count();
  devices[0] = device;
  params.n_gpu_layers = 1 + (options.device.layers == 0 ? all : std::min(options.device.layers, all));
  return {};
}

}  // namespace

Result<LlamaModelPtr> LayOutLlamaModel(const Shard& shard, const EngineOptions& options) {
  if (const auto& kernels = LoadedCpuKernels(); !kernels.ok()) return kernels.error();
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<VirtualFile> file, VirtualFile::Open(shard));
  const std::string what = "libllama does not load " + shard.model->path;
  llama_model_params params = llama_model_default_params();
  std::array<ggml_backend_dev_t, 2> devices{};  // ends with a null
  SHOAL_RETURN_IF_ERROR(ChooseDevices(options, devices, params));
  std::optional<LayoutOverrides> layouts;
  if (options.device.none()) params.tensor_buft_overrides = layouts.emplace(shard).get();
  LlamaErrors errors;
  LlamaGuard guard;
  params.load_mode = LLAMA_LOAD_MODE_NONE;
  params.no_alloc = true;
  params.load_mtp = false;
  LlamaModelPtr model;
  try {
    model.reset(llama_model_load_from_file_ptr(file->file(), params));
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, what + ": out of memory"};
  } catch (const std::exception& e) { return Error{ErrorCode::kUnsupported, what + ": " + e.what()}; }
  SHOAL_RETURN_IF_ERROR(file->status());
  if (model == nullptr) return LoadError(what, errors);
  return model;
}

llama_context_params LlamaContextParams(const EngineOptions& options, bool is_last) {
  llama_context_params params = llama_context_default_params();
  const auto rows = static_cast<std::uint32_t>(options.batch_rows_max);
  const auto sequences = static_cast<std::uint32_t>(options.sequences_max);
  // libllama cuts its batch to the context: at least one micro-batch must fit.
  const std::uint32_t cells = PadContext(std::max(static_cast<std::uint32_t>(options.kv_tokens_max), rows));
  params.n_ctx = options.kv_shared ? cells : cells * sequences;
  params.n_batch = rows;
  params.n_ubatch = rows;
  params.n_seq_max = sequences;
  // libllama itself reserves a graph with one output a sequence.
  params.n_outputs_max = std::max(is_last ? static_cast<std::uint32_t>(options.output_rows_max) : rows, sequences);
  params.n_threads = options.threads;
  params.n_threads_batch = options.threads;
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = options.kv_type == KvType::kQ8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
  params.type_v = params.type_k;
  params.op_offload = false;
  params.no_perf = true;
  params.swa_full = true;  // a sliding window forgets nothing, so that every sequence can be rewound and copied
  params.kv_unified = options.kv_shared;
  return params;
}

std::uint64_t CellListBytes(const EngineOptions& options, bool has_sliding_window) {
  return std::uint64_t{LlamaContextParams(options, true).n_ctx} * kCellListBytes * (has_sliding_window ? 2 : 1);
}

Result<LlamaContextPtr> MakeLlamaContext(llama_model* model, const llama_context_params& params) {
  LlamaErrors errors;
  LlamaGuard guard;
  LlamaContextPtr context;
  try {
    context.reset(llama_init_from_model(model, params));
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "libllama makes no context: out of memory"};
  } catch (const std::exception& e) {
    return Error{ErrorCode::kUnsupported, std::string("libllama makes no context: ") + e.what()};
  }
  if (context == nullptr) return LoadError("libllama makes no context", errors);
  return context;
}

EngineMemory MeasureMemory(const Shard& shard, const llama_context* context, const EngineOptions& options) {
  EngineMemory memory;
  for (const auto& [type, part] : llama_get_memory_breakdown(context)) {
    if (HasOwnMemory(type)) continue;
    memory.weight_bytes += part.model;
    memory.kv_bytes += part.context;
    memory.compute_bytes += part.compute;
  }
  for (const ShardTensor& tensor : shard.tensors) {
    if (tensor.unread) memory.weight_bytes -= std::min(memory.weight_bytes, tensor.bytes);
  }
  const auto n_vocab =
      static_cast<std::uint64_t>(llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context))));
  const auto rows = static_cast<std::uint64_t>(options.batch_rows_max);
  const auto output_rows = static_cast<std::uint64_t>(
      std::max(shard.is_last ? options.output_rows_max : options.batch_rows_max, options.sequences_max));
  const std::uint64_t nodes = std::max<std::uint64_t>(kGraphNodesMin, shard.segments.size() * kGraphNodesPerTensor);
  memory.compute_bytes += output_rows * n_vocab * sizeof(float);
  memory.compute_bytes += nodes * kGraphNodeBytes;
  memory.compute_bytes += CellListBytes(options, llama_model_n_swa(llama_get_model(context)) > 0);
  memory.compute_bytes += LongestRow(context, shard) * rows * sizeof(float) +
                          static_cast<std::uint64_t>(options.threads) * kWorkBytesPerThread;
  return memory;
}

}  // namespace shoal
