// One measurement a call, under a lock that all nodes of this machine see.
#include "node/speed_keeper.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <utility>

#include "base/log.h"
#include "cluster/split.h"
#include "device/profile.h"
#include "planner/cost_model.h"

namespace shoal {

static_assert(kCountedRowsMax == kPassRows);  // what a worker counts is what the cost model asks for

namespace {

constexpr double kOperationMax = 1;         // seconds
constexpr DurationUs kEveryUs = 2'000'000;  // how often it is looked what is not known
constexpr DurationUs kIdleUs = 10'000'000;  // no row was run for so long: measuring disturbs nobody

// Held by whoever measures. Without a folder for it there is none, and measuring goes on.
class MachineLock {
 public:
  MachineLock() {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
    const std::string path = (folder / ("shoal-speed-" + std::to_string(::getuid()) + ".lock")).string();
    fd_ = error ? -1 : ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    taken_ = fd_ < 0 || ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
  }
  ~MachineLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  MachineLock(const MachineLock&) = delete;
  MachineLock& operator=(const MachineLock&) = delete;
  bool taken() const { return taken_; }

 private:
  int fd_ = -1;
  bool taken_ = false;
};

double Rate(double bytes_s) { return std::clamp(bytes_s, 1.0, kBytesPerSecondMax); }

}  // namespace

struct SpeedKeeper::Work {
  Work(std::string folder, std::int32_t stage_threads) : home(std::move(folder)), threads(stage_threads) {}

  // Reads or measures what is `missing`, at most one measurement a call, and none while another node measures.
  void Look(const std::set<std::string>& missing, bool may_measure);

  const std::string home;
  const std::int32_t threads;
  std::optional<DeviceProfile> profile;
  std::vector<DeviceSpeed> speeds;
  std::set<std::string> settled;
};

void SpeedKeeper::Work::Look(const std::set<std::string>& missing, bool may_measure) {
  if (!profile) profile = ReadDeviceProfile();
  const std::vector<int> cpus = SpeedCpus(*profile, threads);
  for (const std::string& quantization : missing) {
    if (std::optional<DeviceSpeed> known = LoadDeviceSpeed(home, *profile, quantization, cpus)) {
      speeds.push_back(*std::move(known));
      settled.insert(quantization);
    }
  }
  for (const std::string& quantization : missing) {
    if (settled.contains(quantization) || !may_measure || speeds.size() >= kSpeedsMax) continue;
    const MachineLock lock;
    if (!lock.taken()) return;
    Result<DeviceSpeed> speed = MeasureDeviceSpeed(home, *profile, quantization, cpus);
    settled.insert(quantization);
    if (speed.ok()) {
      speeds.push_back(*std::move(speed));
    } else {
      Log(LogLevel::kInfo, "device", quantization + " is not measured: " + speed.error().message);
    }
    return;
  }
}

SpeedKeeper::SpeedKeeper(Loop& loop, BlockingTasks& tasks, const std::string& home, std::int32_t threads,
                         bool may_measure)
    : loop_(loop), tasks_(tasks), may_measure_(may_measure), work_(std::make_shared<Work>(home, threads)) {}

bool SpeedKeeper::LookAtPace(TimeUs now, const std::vector<ModelHolding>& models,
                             const std::vector<StageHost::Work>& works) {
  DeviceFacts facts;
  FillSpeeds(speeds_, facts);
  for (const StageHost::Work& work : works) {
    const PlaceRequest& request = work.placement.request;
    const auto model = std::find_if(models.begin(), models.end(), [&](const ModelHolding& holding) {
      return holding.fingerprint == request.fingerprint;
    });
    if (model == models.end()) continue;
    for (const SpeedFacts& speed : facts.speeds) {
      if (speed.quantization != model->quantization) continue;
      const PlanDevice device =
          MeasuredDevice({speed.one_row_bytes_s, speed.rows_bytes_s, speed.operation_s, facts.memory_bytes_s},
                         request.shape.layer_bytes);
      const StageWorkerStats& stats = work.stats;
      const PassCounts counts{static_cast<double>(stats.batches), static_cast<double>(stats.more_rows),
                              static_cast<double>(stats.kv_rows), static_cast<double>(stats.output_batches),
                              static_cast<double>(stats.output_more_rows)};
      const StageLoad load = LoadOf(request.shape, work.placement.LayersOf(work.index), request.options);
      pace_.Observe(
          work.placement.model + " " + std::to_string(work.placement.epoch) + " " + std::to_string(work.index),
          SecondsOf(device, load, counts), static_cast<double>(stats.compute_us) / 1e6);
    }
  }
  return pace_.Tick(now);
}

void SpeedKeeper::Tick(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works,
                       std::function<void()> changed) {
  std::set<std::string> quantizations;
  for (const ModelHolding& model : models) quantizations.insert(model.quantization);
  std::uint64_t rows = 0;
  for (const StageHost::Work& work : works) rows += work.stats.rows;
  if (LookAtPace(now, models, works)) changed();
  if (rows != std::exchange(rows_, rows)) worked_ = now;
  if (now < due_ || running_) return;
  std::set<std::string> missing;
  std::set_difference(quantizations.begin(), quantizations.end(), settled_.begin(), settled_.end(),
                      std::inserter(missing, missing.end()));
  const bool first = due_ == 0;  // only reads: the node is about to say that it is ready
  due_ = now + kEveryUs;
  if (missing.empty() || (!may_measure_ && !first)) return;
  const bool idle = worked_ == 0 || now - worked_ > kIdleUs;
  running_ = tasks_.Run([this, work = work_, missing, may = may_measure_ && idle && !first, told = std::move(changed)] {
    work->Look(missing, may);
    loop_.Post([this, speeds = work->speeds, settled = work->settled, told]() mutable {
      running_ = false;
      const bool news = speeds.size() != speeds_.size();
      speeds_ = std::move(speeds);
      settled_ = std::move(settled);
      if (news) told();
    });
  });
}

void SpeedKeeper::Fill(DeviceFacts& facts) const {
  FillSpeeds(speeds_, facts);
  facts.pace = pace_.pace();
}

void FillSpeeds(const std::vector<DeviceSpeed>& speeds, DeviceFacts& facts) {
  facts.memory_bytes_s = 0;
  facts.speeds.clear();
  facts.groups.clear();
  for (const DeviceSpeed& speed : speeds) {
    if (facts.speeds.size() >= kSpeedsMax || speed.quantization.size() > kQuantizationBytesMax) continue;
    facts.memory_bytes_s = std::max(facts.memory_bytes_s, Rate(speed.memory_bytes_s));
    facts.speeds.push_back({speed.quantization, Rate(speed.matrix.one_row_bytes_s), Rate(speed.matrix.rows_bytes_s),
                            std::clamp(speed.matrix.operation_s, 0.0, kOperationMax)});
  }
  if (speeds.empty()) return;
  for (const GroupBandwidth& group : speeds.back().groups) {
    if (facts.groups.size() >= kCoreGroupsMax || group.kind.size() > kNameBytesMax) continue;
    facts.groups.push_back({group.kind, static_cast<std::int32_t>(group.cpus.size()), Rate(group.bytes_s)});
  }
}

}  // namespace shoal
