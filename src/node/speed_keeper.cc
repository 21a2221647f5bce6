// One measurement a call, under a lock that all nodes of this machine see.
#include "node/speed_keeper.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "base/log.h"
#include "cluster/split.h"
#include "device/cpu_affinity.h"
#include "device/cpu_ration.h"
#include "device/profile.h"
#include "node/machine_lock.h"
#include "planner/cost_model.h"

namespace shoal {

static_assert(kCountedRows == kRowPoints &&
              kCountedFewRows == kGroupRows);  // what a worker counts is what the cost model asks for

namespace {

constexpr double kOperationMax = 1;         // seconds
constexpr DurationUs kEveryUs = 2'000'000;  // how often it is looked what is not known
constexpr DurationUs kRationEveryUs = 1'000'000;
constexpr DurationUs kIdleUs = 10'000'000;  // no row was run for so long: measuring disturbs nobody

void LogDuration(const std::string& what, std::chrono::steady_clock::time_point since) {
  char text[32];
  std::snprintf(text, sizeof text, " in %.1f s",
                std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count());
  Log(LogLevel::kInfo, "device", "measured " + what + text);
}

double Rate(double bytes_s) { return std::clamp(bytes_s, 1.0, kBytesPerSecondMax); }

}  // namespace

struct SpeedKeeper::Work {
  Work(std::string folder, StageThreads stage_threads, FindModel find, FindSpeedDevice device)
      : home(std::move(folder)),
        threads(std::move(stage_threads)),
        find_model(std::move(find)),
        find_device(std::move(device)) {}

  // Reads or measures what is `missing`, at most one measurement a call, and none while another node measures.
  void Look(const Missing& missing, bool may_measure);

  const std::string home;
  const StageThreads threads;
  const FindModel find_model;
  const FindSpeedDevice find_device;
  std::optional<DeviceProfile> profile;
  Known known;

 private:
  std::vector<int> CpusOf(const std::string& quantization) const { return SpeedCpus(*profile, threads(quantization)); }
  SpeedDevice DeviceOf(const ModelHolding& holding) const {
    return find_device ? find_device(holding.fingerprint) : SpeedDevice();
  }
  void Read(const Missing& missing);
  void MeasureKind(const std::string& quantization);
  void MeasureModel(const ModelHolding& holding, const std::shared_ptr<const ModelFile>& model);
};

bool SpeedKeeper::Known::Follow(const std::vector<ModelHolding>& here, const FindSpeedDevice& find) {
  std::size_t forgotten = 0;
  for (const ModelHolding& holding : here) {
    const auto settled = settled_models.find(holding.fingerprint);
    if (settled == settled_models.end() || settled->second == find(holding.fingerprint).key) continue;
    settled_models.erase(settled);
    forgotten += std::erase_if(models, [&](const ModelSpeed& one) { return one.fingerprint == holding.fingerprint; });
  }
  return forgotten > 0;
}

void SpeedKeeper::Work::Read(const Missing& missing) {
  const KnownSpeeds kept = LoadSpeeds(home, *profile);
  for (const std::string& quantization : missing.kinds) {
    const DeviceSpeed* const speed = kept.Of(quantization, CpusOf(quantization));
    if (speed == nullptr) continue;
    known.kinds.push_back(*speed);
    known.settled_kinds.insert(quantization);
  }
  for (const ModelHolding& holding : missing.models) {
    const std::string device = DeviceOf(holding).key;
    const ModelSpeed* const speed = kept.Of(holding.fingerprint, CpusOf(holding.quantization), device);
    if (speed == nullptr) continue;
    known.models.push_back(*speed);
    known.Settle(holding.fingerprint, device);
  }
}

void SpeedKeeper::Work::MeasureKind(const std::string& quantization) {
  const auto start = std::chrono::steady_clock::now();
  Result<DeviceSpeed> speed = MeasureDeviceSpeed(home, *profile, quantization, CpusOf(quantization));
  known.settled_kinds.insert(quantization);
  if (speed.ok()) {
    known.kinds.push_back(*std::move(speed));
    LogDuration("memory and " + quantization, start);
  } else {
    Log(LogLevel::kInfo, "device", quantization + " is not measured: " + speed.error().message);
  }
}

void SpeedKeeper::Work::MeasureModel(const ModelHolding& holding, const std::shared_ptr<const ModelFile>& model) {
  const SpeedDevice device = DeviceOf(holding);
  const auto start = std::chrono::steady_clock::now();
  Result<ModelSpeed> speed =
      MeasureModelSpeed(home, *profile, holding.fingerprint, model, CpusOf(holding.quantization), device);
  known.Settle(holding.fingerprint, device.key);
  if (speed.ok()) {
    known.models.push_back(*std::move(speed));
    LogDuration("stages of " + holding.name, start);
  } else {
    Log(LogLevel::kInfo, "device", "stages of " + holding.name + " are not measured: " + speed.error().message);
  }
}

void SpeedKeeper::Work::Look(const Missing& missing, bool may_measure) {
  UseProcessCpus();
  if (!profile) profile = ReadDeviceProfile();
  if (find_device) (void)known.Follow(missing.models, find_device);
  Read(missing);
  if (!may_measure) return;
  for (const std::string& quantization : missing.kinds) {
    if (known.settled_kinds.contains(quantization) || known.kinds.size() >= kSpeedsMax) continue;
    const MachineLock lock;
    if (lock.taken()) MeasureKind(quantization);
    return;
  }
  for (const ModelHolding& holding : missing.models) {
    if (known.settled_models.contains(holding.fingerprint)) continue;
    if (known.models.size() >= kStageSpeedsMax) {
      known.Settle(holding.fingerprint, DeviceOf(holding).key);  // its kind of weights has to do
      continue;
    }
    const std::shared_ptr<const ModelFile> model = find_model(holding);  // may ask other nodes: nobody waits for that
    if (model == nullptr) continue;
    const MachineLock lock;
    if (lock.taken()) MeasureModel(holding, model);
    return;
  }
}

SpeedKeeper::SpeedKeeper(Loop& loop, BlockingTasks& tasks, const std::string& home, StageThreads threads,
                         bool may_measure, FindModel find_model, FindSpeedDevice find_device)
    : loop_(loop),
      tasks_(tasks),
      threads_(threads),
      may_measure_(may_measure),
      find_device_(std::move(find_device)),
      work_(std::make_shared<Work>(home, std::move(threads), std::move(find_model), find_device_)) {}

SpeedKeeper::Missing SpeedKeeper::MissingOf(const std::vector<ModelHolding>& models) const {
  Missing missing;
  for (const ModelHolding& model : models) {
    if (!known_.settled_kinds.contains(model.quantization)) missing.kinds.insert(model.quantization);
    const bool listed = std::any_of(missing.models.begin(), missing.models.end(),
                                    [&](const ModelHolding& one) { return one.fingerprint == model.fingerprint; });
    if (!listed && !known_.settled_models.contains(model.fingerprint)) missing.models.push_back(model);
  }
  return missing;
}

void SpeedKeeper::FillKnown(DeviceFacts& facts) const {
  FillSpeeds(known_.kinds, facts);
  if (beside_cpu_) facts.speeds.clear();
  FillStageSpeeds(known_.models, facts);
}

// Whether what is told of speeds is other than before.
bool SpeedKeeper::LookAtDevices(const std::vector<ModelHolding>& models) {
  if (!find_device_) return false;
  const bool beside = std::any_of(models.begin(), models.end(), [&](const ModelHolding& model) {
    return !find_device_(model.fingerprint).key.empty();
  });
  const bool news = std::exchange(beside_cpu_, beside) != beside;
  return known_.Follow(models, find_device_) || news;
}

bool SpeedKeeper::LookAtPace(TimeUs now, const std::vector<ModelHolding>& models,
                             const std::vector<StageHost::Work>& works) {
  DeviceFacts facts;  // as the planner has them, at full pace
  FillKnown(facts);
  for (const StageHost::Work& work : works) {
    const PlaceRequest& request = work.placement.request;
    const auto model = std::find_if(models.begin(), models.end(), [&](const ModelHolding& holding) {
      return holding.fingerprint == request.fingerprint;
    });
    if (model == models.end()) continue;
    const std::optional<PlanDevice> device =
        MeasuredSpeeds(facts, model->fingerprint, model->quantization, request.shape.layer_bytes);
    if (!device) continue;
    const StageWorkerStats& stats = work.stats;
    PassCounts counts;
    counts.passes = static_cast<double>(stats.batches);
    std::copy(stats.more_rows.begin(), stats.more_rows.end(), counts.rows.begin());
    counts.kv_rows = static_cast<double>(stats.kv_rows);
    counts.kv_many_rows = static_cast<double>(stats.kv_many_rows);
    counts.output_passes = static_cast<double>(stats.output_batches);
    std::copy(stats.output_more_rows.begin(), stats.output_more_rows.end(), counts.output_rows.begin());
    const StageLoad load = LoadOf(request.shape, work.placement.LayersOf(work.index), request.options);
    pace_.Observe(work.placement.model + " " + std::to_string(work.placement.epoch) + " " + std::to_string(work.index),
                  SecondsOf(*device, load, counts), static_cast<double>(stats.compute_us + stats.rest_us) / 1e6);
  }
  return pace_.Tick(now);
}

void SpeedKeeper::LookAtRation(TimeUs now, const std::vector<ModelHolding>& models, std::function<void()> changed) {
  if (now < ration_due_ || looking_) return;
  ration_due_ = now + kRationEveryUs;
  std::set<std::string> types;
  for (const ModelHolding& model : models) types.insert(model.quantization);
  if (types != ration_types_) ration_threads_ = 0;
  ration_types_ = types;
  looking_ = tasks_.Run([this, known = ration_threads_, types, asked = threads_, told = std::move(changed)] {
    if (known == 0) UseProcessCpus();
    const std::size_t threads =
        known > 0 ? known : ThreadsToFeed(ReadDeviceProfile(SystemFiles(), nullptr), types, asked);
    loop_.Post([this, threads, quota = CpuQuota(), told] {
      looking_ = false;
      ration_threads_ = threads;
      const double ration = RationOf(quota, threads);
      if (ration == std::exchange(ration_, ration)) return;
      pace_.SetRation(ration);
      Log(LogLevel::kInfo, "device",
          "its cores may compute " + std::to_string(static_cast<int>(ration * 100)) + " % of the time");
      told();
    });
  });
}

void SpeedKeeper::Tick(TimeUs now, const std::vector<ModelHolding>& models, const std::vector<StageHost::Work>& works,
                       std::function<void()> changed) {
  if (LookAtDevices(models)) changed();
  std::uint64_t rows = 0;
  for (const StageHost::Work& work : works) rows += work.stats.rows;
  if (LookAtPace(now, models, works)) changed();
  if (!running_ && !looking_ && std::exchange(forget_, false)) {  // whoever looks now tells of what was before
    known_.settled_kinds.clear();
    known_.settled_models.clear();
    work_->known = Known();
    ration_threads_ = 0;
  }
  LookAtRation(now, models, changed);
  if (rows != std::exchange(rows_, rows)) worked_ = now;
  if (now < due_ || running_) return;
  const Missing missing = MissingOf(models);
  const bool first = due_ == 0;  // only reads: the node is about to say that it is ready
  due_ = now + kEveryUs;
  if (missing.empty() || (!may_measure_ && !first)) return;
  const bool idle = worked_ == 0 || now - worked_ > kIdleUs;
  running_ = tasks_.Run([this, work = work_, missing, may = may_measure_ && idle && !first, told = std::move(changed)] {
    work->Look(missing, may);
    loop_.Post([this, known = work->known, told]() mutable {
      running_ = false;
      const bool news = known.kinds.size() != known_.kinds.size() || known.models.size() != known_.models.size();
      known_ = std::move(known);
      if (news) told();
    });
  });
}

void SpeedKeeper::Fill(DeviceFacts& facts) const {
  FillKnown(facts);
  facts.ration = ration_;
  facts.pace = pace_.pace();
}

std::size_t ThreadsToFeed(const DeviceProfile& profile, const std::set<std::string>& types,
                          const StageThreads& threads) {
  std::size_t most = types.empty() ? SpeedCpus(profile, threads("")).size() : 0;
  for (const std::string& type : types) most = std::max(most, SpeedCpus(profile, threads(type)).size());
  return most;
}

void FillStageSpeeds(const std::vector<ModelSpeed>& models, DeviceFacts& facts) {
  facts.stage_speeds.clear();
  for (const ModelSpeed& model : models) {
    if (facts.stage_speeds.size() >= kStageSpeedsMax) break;
    StageSpeedFacts& told = facts.stage_speeds.emplace_back(StageSpeedFacts{model.fingerprint, model.speed});
    for (double* const bytes_s : RatesOf(told.speed)) *bytes_s = Rate(*bytes_s);
    for (double* const s : {&told.speed.pass_s, &told.speed.token_s}) *s = std::clamp(*s, 0.0, kOperationMax);
  }
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
