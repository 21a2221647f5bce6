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
#include "device/profile.h"

namespace shoal {
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
  explicit Work(std::string folder) : home(std::move(folder)) {}

  // Reads or measures what is `missing`, at most one measurement a call, and none while another node measures.
  void Look(const std::set<std::string>& missing, bool may_measure);

  const std::string home;
  std::optional<DeviceProfile> profile;
  std::vector<DeviceSpeed> speeds;
  std::set<std::string> settled;
};

void SpeedKeeper::Work::Look(const std::set<std::string>& missing, bool may_measure) {
  if (!profile) profile = ReadDeviceProfile();
  for (const std::string& quantization : missing) {
    if (std::optional<DeviceSpeed> known = LoadDeviceSpeed(home, *profile, quantization)) {
      speeds.push_back(*std::move(known));
      settled.insert(quantization);
    }
  }
  for (const std::string& quantization : missing) {
    if (settled.contains(quantization) || !may_measure || speeds.size() >= kSpeedsMax) continue;
    const MachineLock lock;
    if (!lock.taken()) return;
    Result<DeviceSpeed> speed = MeasureDeviceSpeed(home, *profile, quantization);
    settled.insert(quantization);
    if (speed.ok()) {
      speeds.push_back(*std::move(speed));
    } else {
      Log(LogLevel::kInfo, "device", quantization + " is not measured: " + speed.error().message);
    }
    return;
  }
}

SpeedKeeper::SpeedKeeper(Loop& loop, BlockingTasks& tasks, const std::string& home, bool may_measure)
    : loop_(loop), tasks_(tasks), may_measure_(may_measure), work_(std::make_shared<Work>(home)) {}

void SpeedKeeper::Tick(TimeUs now, const std::set<std::string>& quantizations, std::uint64_t rows,
                       std::function<void()> changed) {
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

void SpeedKeeper::Fill(DeviceFacts& facts) const { FillSpeeds(speeds_, facts); }

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
