// Sees to it that a node knows how fast it runs the weights it has and stages of its models: reads what was measured
// before, and measures what is missing, one thing at a time, in a task, while nothing runs here; compares what stages
// take with that; looks once a second whether the ration of its processor time is still the same. Knows no members.
//
// Nodes of one machine do not measure at the same time. On the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
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

// The header of a model that this node can be given stages of; null when it cannot be had now. Blocks, in a task.
using FindModel = std::function<std::shared_ptr<const ModelFile>(const ModelHolding&)>;
// What stages of a model compute on now. Any thread.
using FindSpeedDevice = std::function<SpeedDevice(std::uint64_t fingerprint)>;

// Threads of a stage with weights of a type; 0: one on each fast core. Any thread.
using StageThreads = std::function<std::int32_t(const std::string& quantization)>;

class SpeedKeeper {
 public:
  // `loop` and `tasks` outlive it; `home`: SHOAL_HOME. `may_measure`: else only what was measured before is read. While
  // `find_device` names a device for a model that is here, nothing is told of kinds of weights, which the CPU was
  // measured with; of each model what was measured on its device.
  SpeedKeeper(Loop& loop, BlockingTasks& tasks, const std::string& home, StageThreads threads, bool may_measure,
              FindModel find_model, FindSpeedDevice find_device);

  // The threads of stages to come are others: what is known is of those before, and is looked up or measured anew.
  void Forget() { forget_ = true; }

  // Looks, now and then, what is not known of the weights of `models`, and how what runs here compares with what is;
  // calls `changed` on the loop when there is news. While rows are run nothing is measured. Call often.
  void Tick(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works,
            std::function<void()> changed);

  // Puts what is known into `facts`.
  void Fill(DeviceFacts& facts) const;

  // As PaceKeeper::Cap and work_s.
  bool Cap(double share) { return pace_.Cap(share); }
  double work_s() const { return pace_.work_s(); }

 private:
  struct Work;
  struct Known {
    std::vector<DeviceSpeed> kinds;
    std::vector<ModelSpeed> models;
    std::set<std::string> settled_kinds;  // known, or cannot be measured
    std::map<std::uint64_t, std::string>
        settled_models;  // the same, by fingerprint: on which device (SpeedDevice::key)
    // Forgets what is of other devices than compute the models `here` now; whether there was such.
    bool Follow(const std::vector<ModelHolding>& here, const FindSpeedDevice& find);
    void Settle(std::uint64_t fingerprint, const std::string& device) { settled_models[fingerprint] = device; }
  };
  // Kinds of weights and models of which nothing is known.
  struct Missing {
    std::set<std::string> kinds;
    std::vector<ModelHolding> models;
    bool empty() const { return kinds.empty() && models.empty(); }
  };
  Missing MissingOf(const std::vector<ModelHolding>& models) const;
  void FillKnown(DeviceFacts& facts) const;
  bool LookAtDevices(const std::vector<ModelHolding>& models);
  void LookAtRation(TimeUs now, const std::vector<ModelHolding>& models, std::function<void()> changed);
  bool LookAtPace(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works);

  Loop& loop_;
  BlockingTasks& tasks_;
  const StageThreads threads_;
  const bool may_measure_;
  const FindSpeedDevice find_device_;
  const std::shared_ptr<Work> work_;  // of the task while one runs
  bool running_ = false, looking_ = false, forget_ = false;
  Known known_;
  bool beside_cpu_ = false;  // a device computes a model that is here
  PaceKeeper pace_;
  double ration_ = 1;
  std::size_t ration_threads_ = 0;      // that share it; 0: not known yet
  std::set<std::string> ration_types_;  // whose
  TimeUs due_ = 0, worked_ = 0, ration_due_ = 0;
  std::uint64_t rows_ = 0;
};

// The most threads that a stage with weights of one of `types` has, which a quota is shared by; without types: of any.
std::size_t ThreadsToFeed(const DeviceProfile& profile, const std::set<std::string>& types,
                          const StageThreads& threads);

// Pure: speeds as members tell them, within their limits.
void FillSpeeds(const std::vector<DeviceSpeed>& speeds, DeviceFacts& facts);
void FillStageSpeeds(const std::vector<ModelSpeed>& models, DeviceFacts& facts);

}  // namespace shoal
