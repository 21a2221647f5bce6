// A placed model as the API sees it, wherever its head is: the text of it here, the tokens from
// wherever its head is.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api/backend.h"
#include "cluster/cluster.h"
#include "node/model_library.h"
#include "node/resuming.h"

namespace shoal {

// The placements as the loop last saw them, for other threads. Any thread.
//
// A view is hopeless here only once it was for a moment (kHopelessWait), and longer where this node sees no other one
// (kAloneWait): it may be this one that was cut off.
class PlacementTable {
 public:
  static constexpr std::chrono::seconds kHopelessWait{2}, kAloneWait{15};

  // `alone`: no other member is here.
  void Set(std::vector<PlacementView> placements, bool alone = false);
  std::optional<PlacementView> Find(const std::string& model) const;
  std::vector<PlacementView> all() const;
  // Whether another placement of `model` than `epoch` is live now, and can run.
  bool IsSuperseded(const std::string& model, Epoch epoch) const;
  // Blocks until Set was called more often than `seen` times, at most so long. Returns how often it was.
  std::uint64_t WaitForChange(std::uint64_t seen, std::chrono::milliseconds timeout) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Known {
    PlacementView view;
    Clock::time_point hopeless_since = Clock::time_point::max();
  };
  PlacementView Shown(const Known& known) const;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::uint64_t changes_ = 0;
  std::map<std::string, Known> by_model_;
  bool alone_ = false;
};

// `model`: at least its header. Errors: as Vocabulary::Open.
Result<std::shared_ptr<Backend>> OpenClusterBackend(ModelLibrary& library, const LibraryModel& model,
                                                    const PlacementTable& placements, const PlacementRecord& placement,
                                                    StartAtHead start, Counter& resumed);

// Opens the backend of a placement, as OpenClusterBackend. Errors: kCancelled (given up) and others.
using OpenBackend = std::function<Result<std::shared_ptr<Backend>>(const PlacementRecord&)>;

// The backends of what is placed, by model: opened again when another file takes the model's name, or it is placed with
// another context or for another number of answers. Any thread.
class BackendTable {
 public:
  // Of the placement that clients call `name`; null when there is none, it cannot be served here (logged once), or this
  // was given up. Opening may take minutes, for a vocabulary that has to come from another node: who wants another
  // model does not wait for it.
  std::shared_ptr<Backend> Find(const std::string& name, const PlacementTable& placements, const OpenBackend& open,
                                const std::function<bool()>& given_up);

 private:
  struct Entry {
    std::uint64_t fingerprint = 0;
    PlaceOptions options;
    std::shared_ptr<Backend> backend;
    bool opening = false;  // by one thread; others wait
  };

  void DropUnplaced(const std::vector<PlacementView>& placed);  // mutex_ is held

  std::mutex mutex_;
  std::condition_variable opened_;
  std::map<std::string, std::shared_ptr<Entry>> backends_;  // by model
  std::set<std::string> not_served_;                        // said already
};

}  // namespace shoal
