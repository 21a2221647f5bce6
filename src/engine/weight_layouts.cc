// Layouts are asked of the CPU backend that is loaded; a product of the tensor's shape says which of them takes it.
#include "engine/weight_layouts.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "base/environment.h"
#include "base/log.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

namespace shoal {
namespace {

constexpr const char* kKleidiAi = "CPU_KLEIDIAI";  // ggml's name of the layout

// The special layouts of the CPU, in the order of ggml's preference.
std::vector<ggml_backend_buffer_type_t> SpecialLayouts(ggml_backend_dev_t cpu) {
  std::vector<ggml_backend_buffer_type_t> layouts;
  const auto get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
  for (ggml_backend_buffer_type_t* type = get == nullptr ? nullptr : get(cpu); type != nullptr && *type != nullptr;
       ++type) {
    layouts.push_back(*type);
  }
  return layouts;
}

bool IsKleidiAi(ggml_backend_buffer_type_t layout) { return std::string(ggml_backend_buft_name(layout)) == kKleidiAi; }

bool TakesQ8ByHand() {
  static const bool by_hand = Environment(kKleidiAiQ8Variable) == "1";
  return by_hand;
}

bool MayTake(ggml_backend_buffer_type_t layout, ggml_type type) {
  return TakesQ8ByHand() || type != GGML_TYPE_Q8_0 || !IsKleidiAi(layout);
}

// Once a process: a shard has Q8_0 weights and this CPU's backend KleidiAI's kernels for them.
void WarnOfQ8ByHand() {
  static const bool warned = [] {
    Log(LogLevel::kWarning, "engine",
        std::string(kKleidiAiQ8Variable) +
            "=1: Q8_0 weights are computed by KleidiAI, with 2.6 times the error of ggml's");
    return true;
  }();
  (void)warned;
}

ggml_backend_buffer_type_t LayoutOfShape(ggml_backend_dev_t cpu, ggml_type type, std::int64_t width,
                                         std::int64_t outputs) {
  const ggml_context_ptr context(ggml_init({ggml_tensor_overhead() * 4, nullptr, true}));
  ggml_tensor* weights = ggml_new_tensor_2d(context.get(), type, width, outputs);
  ggml_tensor* input = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, width, 1);
  return LayoutFor(cpu, weights, ggml_mul_mat(context.get(), weights, input));
}

// A tensor's name in the shard; empty when it is not one of its products' weights.
std::string NameInShard(const Shard& shard, const GgufTensor& tensor) {
  if (tensor.name == "output.weight") return shard.is_last ? tensor.name : "";
  if (tensor.name == "token_embd.weight") {  // looked up; multiplied only where it is the output head too
    const bool tied = shard.is_last && shard.model->gguf.FindTensor("output.weight") == nullptr;
    return tied ? "output.weight" : "";
  }
  constexpr std::string_view kLayer = "blk.";
  if (!tensor.name.starts_with(kLayer)) return tensor.name;
  const std::size_t dot = tensor.name.find('.', kLayer.size());
  const int layer = std::atoi(tensor.name.c_str() + kLayer.size());
  if (dot == std::string::npos || layer < shard.layers.first || layer >= shard.layers.last) return "";
  return std::string(kLayer) + std::to_string(layer - shard.layers.first) + tensor.name.substr(dot);
}

}  // namespace

ggml_backend_buffer_type_t LayoutFor(ggml_backend_dev_t cpu, ggml_tensor* weights, ggml_tensor* product) {
  for (ggml_backend_buffer_type_t layout : SpecialLayouts(cpu)) {
    if (!MayTake(layout, weights->type)) continue;
    // What may run there is asked of a tensor that is there: an empty buffer stands in for it.
    const ggml_backend_buffer_ptr probe(ggml_backend_buft_alloc_buffer(layout, 0));
    weights->buffer = probe.get();
    const bool takes = probe != nullptr && ggml_backend_dev_supports_op(cpu, product);
    weights->buffer = nullptr;
    if (takes) return layout;
  }
  return ggml_backend_dev_buffer_type(cpu);
}

LayoutOverrides::LayoutOverrides(const Shard& shard) {
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  ggml_backend_buffer_type_t repacked = nullptr;
  const std::vector<ggml_backend_buffer_type_t> layouts = SpecialLayouts(cpu);
  if (std::none_of(layouts.begin(), layouts.end(), IsKleidiAi)) return;
  std::map<std::pair<std::uint64_t, std::uint64_t>, ggml_backend_buffer_type_t> known;  // by shape
  std::vector<std::string> names;
  for (const GgufTensor& tensor : shard.model->gguf.tensors) {
    if (tensor.type != GGML_TYPE_Q8_0 || tensor.dims.size() != 2) continue;
    const std::string name = NameInShard(shard, tensor);
    if (name.empty()) continue;
    if (TakesQ8ByHand()) {
      WarnOfQ8ByHand();
      return;
    }
    const auto [at, is_new] = known.try_emplace({tensor.dims[0], tensor.dims[1]}, nullptr);
    if (is_new) {
      at->second = LayoutOfShape(cpu, GGML_TYPE_Q8_0, static_cast<std::int64_t>(tensor.dims[0]),
                                 static_cast<std::int64_t>(tensor.dims[1]));
    }
    if (at->second == ggml_backend_dev_buffer_type(cpu)) continue;  // libllama reads that as "any layout of the CPU"
    repacked = at->second;
    names.push_back(name);
  }
  if (names.empty()) return;
  pattern_ = PatternOf(names);
  list_ = {{pattern_.c_str(), repacked}, {nullptr, nullptr}};
}

std::string PatternOf(const std::vector<std::string>& names) {
  std::string pattern;
  for (const std::string& name : names) {
    pattern += pattern.empty() ? "^(" : "|";
    for (const char c : name) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      if (!plain) pattern += '\\';
      pattern += c;
    }
  }
  return pattern + ")$";
}

}  // namespace shoal
