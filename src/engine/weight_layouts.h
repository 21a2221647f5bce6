// In which of ggml's layouts of memory a CPU keeps weights: as they are, repacked by ggml, or packed for Arm's
// KleidiAI.
//
// KleidiAI's product of Q8_0 weights has 2.6 times the error of ggml's own (docs/quantization.md). So where a backend
// has both, Q8_0 stays with ggml's, unless somebody asks for it by hand.
#pragma once

#include <string>
#include <vector>

#include "engine/shard.h"
#include "llama.h"

namespace shoal {

inline constexpr const char* kKleidiAiQ8Variable = "SHOAL_KLEIDIAI_Q8_0";  // "1": Q8_0 by KleidiAI too

// Where the weights of `product` (ggml_mul_mat(weights, input)) go: the first of ggml's special layouts that takes the
// product and may; else the plain one. `weights` has no buffer.
ggml_backend_buffer_type_t LayoutFor(ggml_backend_dev_t cpu, ggml_tensor* weights, ggml_tensor* product);

// What libllama, which takes the first layout that can, has to be told of a shard. Outlives the load.
class LayoutOverrides {
 public:
  explicit LayoutOverrides(const Shard& shard);
  // Null where there is nothing to say.
  const llama_model_tensor_buft_override* get() const { return list_.empty() ? nullptr : list_.data(); }

 private:
  std::string pattern_;
  std::vector<llama_model_tensor_buft_override> list_;  // ends with an empty one
};

// Pure. The expression that matches `names` and nothing else.
std::string PatternOf(const std::vector<std::string>& names);

}  // namespace shoal
