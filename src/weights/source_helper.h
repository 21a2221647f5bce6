// Ranges of sourced models that this node gets for members that do not reach the models' source.
//
// Says at once whether it will; what it is at, whoever asked sees by the states of ranges (weights/peer_messages.h),
// and takes it like any range that a member has. What it got for others goes after a while, unless this node uses it.
// Knows no network: who makes it says how to fetch. Any thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "weights/store.h"

namespace shoal {

inline constexpr std::size_t kHelpedModelsMax = 2;  // at a time

struct SourceHelperOptions {
  // A task on a thread of its own; false: too many run.
  std::function<bool(std::function<void()>)> run;
  // Ranges into the store, from the source alone or from members that have them. Blocks.
  std::function<Status(const StoredModel&, const std::vector<std::size_t>&)> fetch;
  std::chrono::milliseconds failed_for = std::chrono::seconds(30);  // then it is tried again; doubles with each failure
  std::chrono::milliseconds kept_for = std::chrono::minutes(10);    // what it got, for whoever asked to take it
};

class SourceHelper {
 public:
  // What runs must have ended before it goes.
  SourceHelper(std::shared_ptr<WeightStore> store, SourceHelperOptions options)
      : store_(std::move(store)), options_(std::move(options)) {}

  // Takes it on, or has already. Errors: kUnsupported (no source is known), kOverloaded, kIo (no room to spare: it
  // evicts nothing for others), and why it failed lately.
  Status Fetch(const StoredModel& model, const std::vector<std::size_t>& ranges);
  // This node needs them itself: they stay.
  void Keep(const ModelId& id, const std::vector<std::size_t>& ranges);
  // Removes what others have had the time to take. Called now and then.
  void Tidy();

 private:
  using Clock = std::chrono::steady_clock;
  struct Help {
    StoredModel model;
    std::set<std::size_t> wanted;  // to be fetched next
    bool running = false;
    Status failed;
    std::chrono::milliseconds failed_for{};
    Clock::time_point failed_at{};
  };
  void Work(const ModelId& id);
  Status FetchNow(const StoredModel& model, const std::vector<std::size_t>& ranges);

  const std::shared_ptr<WeightStore> store_;
  const SourceHelperOptions options_;
  std::mutex mutex_;
  std::map<ModelId, Help> helps_;                                         // guarded by mutex_
  std::map<std::pair<ModelId, std::size_t>, Clock::time_point> fetched_;  // guarded by mutex_: for others, until when
};

}  // namespace shoal
