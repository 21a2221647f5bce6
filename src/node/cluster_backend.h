// A placed model as the API sees it, wherever its head is: the text of it here, the tokens from
// wherever its head is.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/backend.h"
#include "cluster/cluster.h"
#include "node/model_library.h"
#include "node/resuming.h"

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

// Errors: kNotFound (the model's file is not here: its text cannot be made into tokens), as Vocabulary::Open.
Result<std::shared_ptr<Backend>> OpenClusterBackend(ModelLibrary& library, const PlacementTable& placements,
                                                    const PlacementRecord& placement, StartAtHead start,
                                                    Counter& resumed);

}  // namespace shoal
