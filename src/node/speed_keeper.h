// Sees to it that a node knows how fast it runs the weights it has: reads what was measured before, and measures what
// is missing, one kind of weights at a time, in a task, while nothing runs here; compares what stages take with that.
// Knows no members.
//
// Nodes of one machine do not measure at the same time. On the loop.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/member.h"
#include "node/device_speed.h"
#include "node/pace_keeper.h"
#include "node/stage_host.h"
#include "runtime/blocking_tasks.h"
#include "runtime/loop.h"

namespace shoal {

class SpeedKeeper {
 public:
  // `loop` and `tasks` outlive it; `home`: SHOAL_HOME; `threads`: of a stage, 0: one on each
  // fast core. `may_measure`: else only what was measured before is read.
  SpeedKeeper(Loop& loop, BlockingTasks& tasks, const std::string& home, std::int32_t threads, bool may_measure);

  // Looks, now and then, what is not known of the weights of `models`, and how what runs here compares with what is;
  // calls `changed` on the loop when there is news. While rows are run nothing is measured. Call often.
  void Tick(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works,
            std::function<void()> changed);

  // Puts what is known into `facts`.
  void Fill(DeviceFacts& facts) const;

 private:
  struct Work;
  bool LookAtPace(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works);

  Loop& loop_;
  BlockingTasks& tasks_;
  const bool may_measure_;
  const std::shared_ptr<Work> work_;  // of the task while one runs
  bool running_ = false;
  std::vector<DeviceSpeed> speeds_;
  std::set<std::string> settled_;  // known, or cannot be measured
  PaceKeeper pace_;
  TimeUs due_ = 0, worked_ = 0;
  std::uint64_t rows_ = 0;
};

// Pure: speeds as members tell them, within their limits.
void FillSpeeds(const std::vector<DeviceSpeed>& speeds, DeviceFacts& facts);

}  // namespace shoal
