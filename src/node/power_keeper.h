// Watches this device's heat and battery while it is a node: how much it should rest between micro-batches, and whether
// it should give its layers to others. Reads in tasks; decides with Pacer, HeatGuard and BatteryGuard. Knows no
// members.
//
// While nothing runs it looks twice a minute. On the loop. What this device's limiter does is kept for the next start.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/member.h"
#include "device/heat_sensors.h"
#include "device/power_facts.h"
#include "node/battery_guard.h"
#include "node/draw_meter.h"
#include "node/heat_guard.h"
#include "node/pacer.h"
#include "node/stage_host.h"
#include "runtime/blocking_tasks.h"
#include "runtime/loop.h"

namespace shoal {

struct PowerOptions {
  bool pacing = true;
  int battery_floor_percent = BatteryGuard::kFloorPercent;  // 0: never drains
  bool heat_drains = true;
  std::string root;  // in place of /, with /sys in it (tests)
  std::string file;  // keeps what pacing has found out; empty: nothing is kept
};

class PowerKeeper {
 public:
  // `loop` and `tasks` outlive it.
  PowerKeeper(Loop& loop, BlockingTasks& tasks, const PowerOptions& options);

  // Looks now and then; calls `changed` on the loop when rest(), draining() or cap() changed. `work_s`: what the stages
  // of `works` have done (PaceKeeper::work_s). Call often.
  void Tick(TimeUs now, double work_s, const std::vector<StageHost::Work>& works, std::function<void()> changed);

  double rest() const { return pacer_.rest(); }
  // Why this device should take no stages, for people; empty: it may.
  const std::string& draining() const { return battery_.reason().empty() ? heat_.reason() : battery_.reason(); }
  // Share of their highest frequency that the cores are allowed; empty: unknown.
  std::optional<double> cap() const { return cap_; }
  // Puts what others may know into `facts`.
  void Fill(DeviceFacts& facts) const;

 private:
  struct Sensors;
  struct Reading {
    HeatReading heat;
    std::optional<PowerFacts> power;  // when it was asked for
  };
  bool Take(const Reading& reading);
  bool TakeDraw(std::optional<double> watts);
  void Keep();

  Loop& loop_;
  BlockingTasks& tasks_;
  const PowerOptions options_;
  const std::shared_ptr<Sensors> sensors_;  // of the task while one runs
  bool running_ = false, worked_ = false;
  Pacer pacer_;
  std::optional<Pacer::Known> kept_;
  BatteryGuard battery_;
  HeatGuard heat_;
  DrawMeter draw_;
  double drawn_busy_s_ = 0;  // seen_.busy_s at the last reading of the battery
  TimeUs drawn_at_ = 0;      // and its time; 0: none yet
  Pacer::Seen seen_;
  std::uint64_t rows_ = 0;
  std::optional<double> cap_;
  std::optional<bool> on_battery_;
  TimeUs heat_due_ = 0, battery_due_ = 0, worked_at_ = 0;
  DurationUs battery_every_ = 0;
};

}  // namespace shoal
