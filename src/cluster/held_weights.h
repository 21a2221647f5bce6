// Which of a model's weights are on nobody's disk. Pure: knows no members.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "cluster/member.h"

namespace shoal {

// Weights that are wanted, without those that are found.
class MissingWeights {
 public:
  // For a stage of `layers`, of a model with `layers_of_model`.
  void Want(LayerRange layers, std::int32_t layers_of_model);
  // Takes away what `held` has; whether that was anything.
  bool Find(const HeldWeights& held);
  bool empty() const { return layers_.empty() && !shared_ && !embeddings_ && !output_; }
  bool operator==(const MissingWeights&) const = default;
  // "layers 3-5, 7 and the embeddings"; empty where nothing is missing.
  std::string Text() const;

 private:
  std::vector<LayerRange> layers_;  // ascending, apart from each other
  bool shared_ = false, embeddings_ = false, output_ = false;
};

}  // namespace shoal
