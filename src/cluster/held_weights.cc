// Ranges, and what is cut out of them.
#include "cluster/held_weights.h"

#include <algorithm>

#include "base/units.h"

namespace shoal {
namespace {

// `ranges` without `range`; both ascending.
std::vector<LayerRange> Without(const std::vector<LayerRange>& ranges, LayerRange range) {
  std::vector<LayerRange> rest;
  for (const LayerRange& one : ranges) {
    const LayerRange before{one.first, std::min(one.last, range.first)};
    const LayerRange after{std::max(one.first, range.last), one.last};
    if (before.first < before.last) rest.push_back(before);
    if (after.first < after.last) rest.push_back(after);
  }
  return rest;
}

std::string JoinedByAnd(const std::vector<std::string>& parts) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
  }
  return text;
}

}  // namespace

void MissingWeights::Want(LayerRange layers, std::int32_t layers_of_model) {
  shared_ = true;
  embeddings_ = embeddings_ || layers.first == 0;
  output_ = output_ || layers.last == layers_of_model;
  std::vector<LayerRange> all = Without(layers_, layers);
  all.push_back(layers);
  std::sort(all.begin(), all.end(), [](const LayerRange& a, const LayerRange& b) { return a.first < b.first; });
  layers_.clear();
  for (const LayerRange& one : all) {
    if (layers_.empty() || layers_.back().last != one.first) {
      layers_.push_back(one);
    } else {
      layers_.back().last = one.last;
    }
  }
}

bool MissingWeights::Find(const HeldWeights& held) {
  const MissingWeights before = *this;
  if (held.sourced) *this = {};
  for (const LayerRange& range : held.layers) layers_ = Without(layers_, range);
  shared_ = shared_ && !held.shared;
  embeddings_ = embeddings_ && !held.embeddings;
  output_ = output_ && !held.output;
  return *this != before;
}

std::string MissingWeights::Text() const {
  std::vector<std::string> parts;
  if (!layers_.empty()) {
    const bool one = layers_.size() == 1 && layers_[0].count() == 1;
    parts.push_back((one ? "layer " : "layers ") + FormatLayers(layers_));
  }
  if (embeddings_) parts.emplace_back("the embeddings");
  if (output_) parts.emplace_back("the output head");
  if (shared_) parts.emplace_back("the tensors that all stages share");
  return JoinedByAnd(parts);
}

}  // namespace shoal
