// One type of weights a task, under the lock of all who measure on this machine.
#include "node/kernel_keeper.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "base/log.h"
#include "device/cpu_affinity.h"
#include "engine/cpu_kernels.h"
#include "node/machine_lock.h"

namespace shoal {
struct KernelKeeper::State {
  enum class Outcome { kNone, kMeasured, kGivenUp, kLowBattery };

  void Run(const KernelKeeperOptions& options, std::string type);
  void Settle(const std::string& type, const Result<KernelChoice>& measured);

  std::atomic<bool> cancelled{false}, stopped{false};
  mutable std::mutex mutex;  // of all that follows
  KernelChoices choices;
  bool running = false, changed = false;
  std::string doing;  // for people; empty: nothing
  Outcome outcome = Outcome::kNone;
  std::map<std::string, int> attempts;  // by type, that came to their end; kAttemptsMax: no more
  std::string advised;                  // once it is known
};

void KernelKeeper::State::Run(const KernelKeeperOptions& options, std::string type) {
  UseProcessCpus();
  const DeviceProfile profile = options.profile ? options.profile() : ReadDeviceProfile();
  const bool low = BatteryGuard::IsLow(profile.power, options.battery_floor_percent);
  {
    const std::lock_guard lock(mutex);
    advised = AdvisedWeightsType(AdviseDevice(profile));
    if (type.empty()) type = advised;
    const bool known = HasChoiceOf(choices, type);
    if (known || low) {
      outcome = low ? Outcome::kLowBattery : Outcome::kNone;
      doing = low ? "waits: the battery is low" : "";
      running = false;
      return;
    }
    doing = "measures " + type;
  }
  std::optional<Result<KernelChoice>> measured;
  const KernelMeasuring how{true, [this] { return cancelled || stopped; }};
  if (options.measure) {
    measured = options.measure(type, how);
  } else if (const MachineLock lock; lock.taken()) {  // whoever has it needs the processor
    // Unless another process of this device has found it meanwhile.
    const KernelChoices kept = LoadKernelChoices(options.home, profile);
    if (HasChoiceOf(kept, type)) {
      measured = *ChoiceOf(kept, type);
    } else {
      measured = MeasureKernels(options.home, profile, type, how);
    }
  }
  const std::lock_guard lock(mutex);
  doing.clear();
  if (measured) Settle(type, *measured);
  running = false;
}

// Under the mutex.
void KernelKeeper::State::Settle(const std::string& type, const Result<KernelChoice>& measured) {
  if (measured.ok()) {
    const std::string variant = LoadedCpuVariant();
    const int before = ThreadsOf(choices, type, variant);
    std::erase_if(choices, [&](const KernelChoice& one) { return one.quantization == type; });
    choices.push_back(*measured);
    changed = changed || before != ThreadsOf(choices, type, variant);
    outcome = Outcome::kMeasured;
    const KernelTrial& chosen = measured->chosen();
    Log(LogLevel::kInfo, "device",
        "CPU kernels for " + type + ", from the next " + (chosen.variant == variant ? "placement" : "start") +
            " on: " + measured->why);
    return;
  }
  outcome = Outcome::kGivenUp;
  int& tried = attempts[type];
  if (measured.error().code == ErrorCode::kUnavailable) {
    ++tried;
  } else if (measured.error().code != ErrorCode::kCancelled) {  // work that came says nothing of the type
    tried = kAttemptsMax;
  }
  if (stopped) return;
  Log(LogLevel::kInfo, "device",
      "CPU kernels for " + type + " are not measured" + (tried < kAttemptsMax ? " yet: " : ": ") +
          measured.error().message);
}

KernelKeeper::KernelKeeper(BlockingTasks& tasks, KernelKeeperOptions options)
    : tasks_(tasks), options_(std::move(options)), state_(std::make_shared<State>()) {
  state_->choices = options_.known;
}

KernelKeeper::~KernelKeeper() { Stop(); }

void KernelKeeper::GiveWay() { state_->cancelled = true; }

void KernelKeeper::Stop() { state_->stopped = true; }

// The type to measure next, "" for what is advised where that is not known yet. Under the mutex.
std::optional<std::string> KernelKeeper::Next(const std::vector<std::string>& types) {
  std::vector<std::string> wanted = types;
  if (wanted.empty()) wanted.push_back(state_->advised);
  for (const std::string& type : wanted) {
    if (HasChoiceOf(state_->choices, type) || state_->choices.size() >= kKernelTypesMax) continue;
    const auto tried = state_->attempts.find(type);
    if (tried == state_->attempts.end() || tried->second < kAttemptsMax) return type;
  }
  return std::nullopt;
}

bool KernelKeeper::Tick(TimeUs now, bool busy, const std::vector<std::string>& types) {
  if (busy || busy_at_ == 0) busy_at_ = now;
  if (busy) GiveWay();
  if (!options_.may_measure || options_.threads != 0 || state_->stopped) return false;
  const std::lock_guard lock(state_->mutex);
  if (state_->running) return false;
  const State::Outcome outcome = std::exchange(state_->outcome, State::Outcome::kNone);
  if (outcome == State::Outcome::kMeasured) idle_us_ = kIdleUs;
  if (outcome == State::Outcome::kLowBattery) due_ = now + kLowBatteryUs;
  if (outcome == State::Outcome::kGivenUp) {
    idle_us_ = std::min(idle_us_ * 2, kIdleMaxUs);
    due_ = now + idle_us_;
  }
  const bool changed = std::exchange(state_->changed, false);
  if (busy || now - busy_at_ < idle_us_ || now < due_) return changed;
  const std::optional<std::string> type = Next(types);
  if (!type) return changed;
  state_->cancelled = false;
  due_ = now + kIdleUs;  // where another one measures on this machine
  state_->running = tasks_.Run([state = state_, options = options_, type = *type] { state->Run(options, type); });
  return changed;
}

std::int32_t KernelKeeper::ThreadsFor(const std::string& quantization) const {
  if (options_.threads != 0) return options_.threads;
  const std::lock_guard lock(state_->mutex);
  return ThreadsOf(state_->choices, quantization, LoadedCpuVariant());
}

bool KernelKeeper::busy() const {
  const std::lock_guard lock(state_->mutex);
  return state_->running;
}

KernelStatus KernelKeeper::status() const {
  KernelStatus status;
  status.loaded = LoadedCpuVariant();
  const std::lock_guard lock(state_->mutex);
  status.state = state_->doing;
  if (!options_.may_measure) status.state = "not measured by itself: --speed-test off";
  if (options_.threads != 0) status.state = "threads are given: --threads";
  for (const KernelChoice& choice : state_->choices) {
    status.choices.push_back({choice.quantization, choice.chosen().variant, choice.chosen().threads, choice.why});
  }
  return status;
}

}  // namespace shoal
