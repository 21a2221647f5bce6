// A placed model as the API sees it, wherever its head is: finds the head, asks again when the placement has moved.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/backend.h"
#include "cluster/cluster.h"
#include "node/model_library.h"

namespace shoal {

// The placements as the loop last saw them, for other threads. Any thread.
class PlacementTable {
 public:
  void Set(std::vector<PlacementView> placements);
  std::optional<PlacementView> Find(const std::string& model) const;
  std::vector<PlacementView> all() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, PlacementView> by_model_;
};

// Starts a generation on the head of `placement`, here or elsewhere. Errors: kStale, kUnavailable, and the head's.
using StartAtHead =
    std::function<Result<std::unique_ptr<GenerationHandle>>(const PlacementRecord& placement, GenerateOptions options)>;

// Errors: kNotFound (the model's file is not here: its text cannot be made into tokens), as Vocabulary::Open.
Result<std::shared_ptr<Backend>> OpenClusterBackend(ModelLibrary& library, const PlacementTable& placements,
                                                    const PlacementRecord& placement, StartAtHead start);

}  // namespace shoal
