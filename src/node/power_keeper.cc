// Heat every two seconds while stages work; the battery, which may take a program, every ten while there are stages.
#include "node/power_keeper.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/log.h"
#include "device/power_table.h"
#include "device/profile.h"
#include "identity/private_file.h"

namespace shoal {
namespace {

constexpr DurationUs kFirstUs = 2'000'000;       // after the start, which should be quick
constexpr DurationUs kIdleEveryUs = 30'000'000;  // of heat while nothing runs
constexpr DurationUs kBatteryEveryUs = 30'000'000, kBatteryWithStagesUs = 10'000'000;
constexpr DurationUs kNoBatteryEveryUs = 600'000'000;  // where there is none
constexpr DurationUs kWorkingUs = 10'000'000;          // after the last row
constexpr DurationUs kDoubtUs = 2'000'000;             // to a second reading of a low one
constexpr DurationUs kDrainingEveryUs = 10'000'000;    // when it waits for a charger, or to cool
constexpr std::size_t kFileBytesMax = 4096;
constexpr double kKeptNews = 0.05;  // of the limiter's yield
constexpr int kPercentStep = 5;     // others are told no more than that

}  // namespace

struct PowerKeeper::Sensors {
  explicit Sensors(std::string folder) : files(std::move(folder)) {}

  Reading Read(bool battery) {
    const CommandRunner run = files.is_live() ? CommandRunner(RunCommand) : nullptr;
    if (!heat) heat.emplace(files, ReadDeviceProfile(files, nullptr).FastCpus());
    Reading reading;
    reading.heat = heat->Read();
    if (battery) reading.power = ReadSupplyFacts(files, run);
    return reading;
  }

  const SystemFiles files;
  std::optional<HeatSensors> heat;  // looked for once
};

PowerKeeper::PowerKeeper(Loop& loop, BlockingTasks& tasks, const PowerOptions& options)
    : loop_(loop),
      tasks_(tasks),
      options_(options),
      sensors_(std::make_shared<Sensors>(options.root)),
      battery_(options.battery_floor_percent),
      battery_every_(kBatteryEveryUs) {
  if (!options_.file.empty()) kept_ = ParsePacing(ReadPrivateText(options_.file, kFileBytesMax));
  if (kept_) pacer_ = Pacer(*kept_);
}

void PowerKeeper::Tick(TimeUs now, double work_s, const std::vector<StageHost::Work>& works,
                       std::function<void()> changed) {
  if (heat_due_ == 0) heat_due_ = battery_due_ = now + kFirstUs;
  std::uint64_t rows = 0, busy_us = 0, rest_us = 0;
  for (const StageHost::Work& work : works) {
    rows += work.stats.rows;
    busy_us += work.stats.compute_us;
    rest_us += work.stats.rest_us;
  }
  seen_.work_s = work_s;
  seen_.busy_s = static_cast<double>(busy_us) / 1e6;
  seen_.rest_s = static_cast<double>(rest_us) / 1e6;
  if (rows != std::exchange(rows_, rows)) worked_at_ = now;
  const bool working = worked_at_ > 0 && now - worked_at_ < kWorkingUs;
  if (working && !worked_) heat_due_ = std::min(heat_due_, now);
  worked_ = working;
  // Only what it has to give away makes a charge urgent.
  if (!works.empty() && battery_every_ == kBatteryEveryUs) {
    battery_due_ = std::min(battery_due_, now + kBatteryWithStagesUs);
  }
  if (running_ || now < std::min(heat_due_, battery_due_)) return;
  const bool battery = now >= battery_due_;
  heat_due_ = now + (working || pacer_.rest() > 0 ? Pacer::kEveryUs : kIdleEveryUs);
  if (battery) battery_due_ = now + battery_every_;
  running_ = tasks_.Run([this, sensors = sensors_, battery, told = std::move(changed)] {
    const Reading reading = sensors->Read(battery);
    loop_.Post([this, reading, told] {
      running_ = false;
      if (Take(reading)) told();
    });
  });
}

bool PowerKeeper::Take(const Reading& reading) {
  Pacer::Seen seen = seen_;
  seen.heat = reading.heat;
  bool changed = std::exchange(cap_, reading.heat.cap) != reading.heat.cap;
  if (options_.pacing && pacer_.Update(loop_.clock().Now(), seen)) {
    changed = true;
    Log(LogLevel::kInfo, "device",
        pacer_.rest() > 0 ? "it is hot: stages rest " + std::to_string(static_cast<int>(100 * pacer_.rest())) +
                                " % of the time that they compute"
                          : "stages rest no more");
  }
  if (options_.heat_drains && heat_.Update(loop_.clock().Now(), reading.heat, seen.busy_s)) changed = true;
  if (heat_.in_doubt()) heat_due_ = std::min(heat_due_, loop_.clock().Now() + Pacer::kEveryUs);
  if (!heat_.reason().empty()) heat_due_ = std::min(heat_due_, loop_.clock().Now() + kDrainingEveryUs);
  Keep();
  if (!reading.power) return changed;
  battery_every_ = reading.power->batteries.empty() ? kNoBatteryEveryUs : kBatteryEveryUs;
  const std::optional<int> before = battery_.percent();
  const bool drains = battery_.Update(*reading.power);
  changed = TakeDraw(reading.power->drawn_w()) || changed;
  const bool on_battery = IsOnBattery(*reading.power);
  changed = std::exchange(on_battery_, on_battery) != on_battery || changed;
  if (battery_.in_doubt()) battery_due_ = loop_.clock().Now() + kDoubtUs;
  if (!battery_.reason().empty()) battery_due_ = loop_.clock().Now() + kDrainingEveryUs;
  return drains || battery_.percent() != before || changed;
}

bool PowerKeeper::TakeDraw(std::optional<double> watts) {
  const TimeUs now = loop_.clock().Now();
  const double busy_s = seen_.busy_s - std::exchange(drawn_busy_s_, seen_.busy_s);
  const DurationUs since = now - std::exchange(drawn_at_, now);
  // Stages that ended took what they had computed with them.
  if (since == now || since <= 0 || busy_s < 0) return false;
  return draw_.Update(watts, busy_s / (static_cast<double>(since) / 1e6));
}

void PowerKeeper::Keep() {
  const std::optional<Pacer::Known> known = pacer_.known();
  if (!known || options_.file.empty()) return;
  const bool same = kept_ && std::abs(kept_->limit_celsius - known->limit_celsius) < Pacer::kMargin &&
                    std::abs(kept_->limited_yield - known->limited_yield) < kKeptNews;
  if (same) return;
  kept_ = known;
  (void)tasks_.Run([path = options_.file, text = PacingText(*known)] {
    const Status written = WritePrivateText(path, text);
    if (!written.ok()) Log(LogLevel::kInfo, "device", written.error().message);
  });
}

void PowerKeeper::Fill(DeviceFacts& facts) const {
  const std::optional<int> percent = battery_.percent();
  if (on_battery_) facts.on_battery = *on_battery_;
  if (draw_.idle_w()) facts.idle_w = *draw_.idle_w();
  if (draw_.active_w()) facts.active_w = *draw_.active_w();
  facts.power_measured = draw_.idle_w() && draw_.active_w();
  facts.battery_percent = percent ? *percent / kPercentStep * kPercentStep : -1;
  facts.rest = std::min(kRestToldMax, static_cast<double>(static_cast<int>(pacer_.rest() * 20)) / 20);
  facts.draining = draining().substr(0, kNameBytesMax);
}

}  // namespace shoal
