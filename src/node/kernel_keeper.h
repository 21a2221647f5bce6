// Sees to it that this device knows its fastest CPU kernels and threads (node/kernel_choice.h): measures, once for each
// type of weights and again when chip, ggml or the backends change, while nothing runs here. Knows no members.
//
// Never soon after a start; given up the moment something wants to run, and tried again after a longer rest; not on a
// battery below its floor. A process keeps the backend that it loaded: another one takes effect at its next start, a
// number of threads at the next stage that is loaded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/control_service.h"
#include "node/battery_guard.h"
#include "node/kernel_choice.h"
#include "runtime/blocking_tasks.h"
#include "runtime/clock.h"

namespace shoal {

struct KernelKeeperOptions {
  std::string home;          // SHOAL_HOME
  KernelChoices known;       // as LoadKernelChoices found them when this process began
  bool may_measure = true;   // else what is known is used
  std::int32_t threads = 0;  // of a stage, if somebody said: nothing is chosen then
  int battery_floor_percent = BatteryGuard::kFloorPercent;
  // Tests put others in their place; empty: MeasureKernels and this device's profile.
  std::function<Result<KernelChoice>(const std::string& quantization, const KernelMeasuring& how)> measure;
  std::function<DeviceProfile()> profile;
};

class KernelKeeper {
 public:
  static constexpr DurationUs kIdleUs = 10'000'000;      // nothing ran for so long: measuring disturbs nobody
  static constexpr DurationUs kIdleMaxUs = 600'000'000;  // each time it is given up the rest before it doubles, up to
  static constexpr DurationUs kLowBatteryUs = 60'000'000;
  static constexpr int kAttemptsMax = 8;  // of a type, until the next start, that something else disturbed

  // `tasks` outlives it.
  KernelKeeper(BlockingTasks& tasks, KernelKeeperOptions options);
  ~KernelKeeper();  // Stop()

  // Looks whether there is something to measure. `busy`: something runs here or is about to; `types`: of the weights
  // here, ggml's names; empty: what is advised for this device. True when the threads of stages to come have changed.
  // Call often, on one thread; does not block.
  bool Tick(TimeUs now, bool busy, const std::vector<std::string>& types);
  // Something wants to run: what is measured now is given up. Any thread.
  void GiveWay();
  // The same, for good.
  void Stop();

  // Threads of a stage of such weights, 0: one on each fast core. Any thread.
  std::int32_t ThreadsFor(const std::string& quantization) const;
  // Whether it measures now. Any thread.
  bool busy() const;
  // For people. Any thread.
  KernelStatus status() const;

 private:
  struct State;
  std::optional<std::string> Next(const std::vector<std::string>& types);

  BlockingTasks& tasks_;
  const KernelKeeperOptions options_;
  const std::shared_ptr<State> state_;  // of the task while one runs
  TimeUs busy_at_ = 0, due_ = 0;
  DurationUs idle_us_ = kIdleUs;
};

}  // namespace shoal
