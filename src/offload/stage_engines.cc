// Verdicts of this machine's devices are kept on disk; those of servers only in this process.
#include "offload/stage_engines.h"

#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/program_path.h"
#include "engine/ggml_device.h"
#include "offload/process.h"
#include "offload/remote_engine.h"

namespace shoal {
namespace {

constexpr std::size_t kModelsMax = 64;  // of which something is remembered

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

// Nothing of hidden states.
std::string TokensText(const DeviceReport& report) {
  if (report.tokens == 0) return "";
  return "; " + std::to_string(report.tokens_same) + " of " + std::to_string(report.tokens) +
         " tokens are the same, clearly others " + std::to_string(report.tokens_other);
}

}  // namespace

// What a verdict is about.
struct StageEngines::Subject {
  ModelFingerprint model = 0;
  std::string name;  // of the model, for people
  std::string key;   // everything that the verdict depends on
};

struct StageEngines::Known {
  // Of a server: what is known of it holds until then.
  struct OfServer {
    Verdict verdict;
    std::optional<TimeUs> until;
  };
  struct OfModel {
    std::string name;
    DeviceState state;
  };
  static constexpr const char* kServerItself = "";  // a key

  Known(const std::string& home, bool is_server) : verdicts(home), server(is_server) {}

  std::optional<Verdict> Find(const std::string& key) {
    if (!server) return verdicts.Find(key);
    const std::lock_guard lock(mutex);
    for (const std::string& one : {std::string(kServerItself), key}) {
      const auto found = server_verdicts.find(one);
      if (found == server_verdicts.end()) continue;
      if (!found->second.until || RealClock().Now() < *found->second.until) return found->second.verdict;
    }
    return std::nullopt;
  }

  void Keep(const std::string& key, const Verdict& verdict) {
    if (!server) return verdicts.Keep(key, verdict);
    const std::lock_guard lock(mutex);
    if (server_verdicts.size() >= kModelsMax && !server_verdicts.contains(key)) server_verdicts.clear();
    server_verdicts[key] = {verdict, verdict.passed ? std::nullopt : std::optional(RealClock().Now() + kServerRestUs)};
  }

  // Of one that is gone, or was ended: a server with whatever model.
  std::string KeyOfLoss(const Subject& subject) const { return server ? kServerItself : subject.key; }
  void KeepLost(const Subject& subject, const std::string& why) {
    Keep(KeyOfLoss(subject), {false, why});
    Set(subject, {DeviceState::Use::kFailed, why});
  }

  void Set(const Subject& subject, const DeviceState& now) {
    std::function<void()> tell;
    {
      const std::lock_guard lock(mutex);
      if (models.size() >= kModelsMax && !models.contains(subject.model)) models.erase(models.begin());
      OfModel& of = models[subject.model];
      of.name = subject.name;
      if (std::exchange(of.state, now) == now) return;
      tell = changed;
    }
    if (tell) tell();
  }

  std::mutex mutex;
  std::map<ModelFingerprint, OfModel> models;  // guarded by mutex: that the device was asked to compute
  std::function<void()> changed;               // guarded by mutex
  Verdicts verdicts;
  const bool server;
  std::map<std::string, OfServer> server_verdicts;  // guarded by mutex
};

StageEngines::StageEngines(DeviceChoice device, const std::string& home, std::vector<std::string> command)
    : device_(std::move(device)),
      speed_key_(DeviceChoiceText(device_) +
                 (device_.layers > 0 ? " " + std::to_string(device_.layers) + " layers" : "") + " | " +
                 DeviceFingerprint(device_)),
      command_(command.empty() ? std::vector<std::string>{ProgramPath(), kOffloadCommand} : std::move(command)),
      known_(std::make_shared<Known>(home, device_.backend == "rpc")) {
  SHOAL_CHECK(!device_.none());
}

Result<std::unique_ptr<Engine>> StageEngines::Open(std::shared_ptr<const ModelFile> model,
                                                   const EngineOptions& options) {
  const EngineOptions there = OnDevice(options);
  SHOAL_ASSIGN_OR_RETURN(const Subject subject, SubjectOf(*model, options.layers));
  const Result<Verdict> verdict = VerdictOf(model, there, subject);
  if (!verdict.ok() && verdict.error().code == ErrorCode::kCancelled) return verdict.error();
  Error why;
  if (verdict.ok() && verdict->passed) {
    Result<OffloadedEngine> opened = OpenThere(model, there, subject);
    if (opened.ok()) {
      known_->Set(subject, {DeviceState::Use::kComputes, opened->device});
      Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + " computes: " + opened->device);
      return std::move(opened->engine);
    }
    why = opened.error();
    if (why.code == ErrorCode::kCancelled) return why;
  } else {
    why = verdict.ok() ? Error{ErrorCode::kUnavailable, verdict->text} : verdict.error();
  }
  known_->Set(subject, {DeviceState::Use::kFailed, why.message});
  Log(LogLevel::kWarning, "device",
      DeviceChoiceText(device_) + " is not used, the CPU computes " + subject.name + ": " + why.message);
  return Engine::Open(std::move(model), options);
}

Result<std::unique_ptr<Engine>> StageEngines::OpenForSpeed(std::shared_ptr<const ModelFile> model,
                                                           const EngineOptions& options) {
  if (device_.layers > 0) {
    return Error{ErrorCode::kUnsupported, "the CPU computes a part of each stage, however long it is"};
  }
  if (known_->server) return Error{ErrorCode::kUnsupported, "an RPC server serves one stage at a time"};
  SHOAL_ASSIGN_OR_RETURN(const Subject subject, SubjectOf(*model, options.layers));
  const std::optional<Verdict> verdict = known_->Find(subject.key);
  if (verdict && !verdict->passed) {
    known_->Set(subject, {DeviceState::Use::kFailed, verdict->text});
    return Error{ErrorCode::kUnavailable, verdict->text};
  }
  EngineOptions there = OnDevice(options);
  there.on_progress = [this](float) { return !closing_; };
  SHOAL_ASSIGN_OR_RETURN(OffloadedEngine opened, OpenThere(std::move(model), there, subject));
  return std::move(opened.engine);
}

std::string StageEngines::SpeedKey(ModelFingerprint model) const {
  const std::lock_guard lock(known_->mutex);
  const auto known = known_->models.find(model);
  const bool failed = known != known_->models.end() && known->second.state.use == DeviceState::Use::kFailed;
  return failed ? "" : speed_key_;
}

DeviceState StageEngines::State() const {
  const std::lock_guard lock(known_->mutex);
  DeviceState all;
  std::string failures;
  for (const auto& [fingerprint, model] : known_->models) {
    if (model.state.use == DeviceState::Use::kComputes) all = model.state;
    if (model.state.use == DeviceState::Use::kFailed) {
      failures += (failures.empty() ? "" : "; ") + model.name + ": " + model.state.text;
    }
  }
  if (failures.empty()) return all;
  if (all.use == DeviceState::Use::kComputes) return {all.use, all.text + "; the CPU computes " + failures};
  return {DeviceState::Use::kFailed, failures};
}

void StageEngines::OnChange(std::function<void()> changed) {
  const std::lock_guard lock(known_->mutex);
  known_->changed = std::move(changed);
}

Result<StageEngines::Subject> StageEngines::SubjectOf(const ModelFile& model, LayerRange layers) const {
  SHOAL_ASSIGN_OR_RETURN(const ModelFingerprint fingerprint, FingerprintOf(model));
  char hex[24];
  std::snprintf(hex, sizeof hex, "%016" PRIx64, fingerprint);
  const std::string name = std::filesystem::path(model.path).stem().string();
  return Subject{fingerprint, name,
                 DeviceChoiceText(device_) + " | " + DeviceFingerprint(device_) + " | " + model.info.quantization +
                     " " + hex + (layers.last == model.info.n_layer ? " with head" : "")};
}

EngineOptions StageEngines::OnDevice(const EngineOptions& options) const {
  EngineOptions there = options;
  there.device = device_;
  return there;
}

Result<Verdict> StageEngines::VerdictOf(const std::shared_ptr<const ModelFile>& model, const EngineOptions& there,
                                        const Subject& subject) {
  if (const std::optional<Verdict> kept = known_->Find(subject.key)) return *kept;
  const Result<DeviceReport> report = CheckOffloaded(model, there, command_);
  if (!report.ok() && report.error().code == ErrorCode::kNotFound) return report.error();
  if (!report.ok() && report.error().code == ErrorCode::kCancelled) return report.error();
  Verdict verdict;
  if (!report.ok()) {
    verdict = {false, report.error().message};
    known_->Keep(report.error().code == ErrorCode::kUnavailable ? known_->KeyOfLoss(subject) : subject.key, verdict);
  } else {
    verdict = {report->passed(), report->device + (report->passed() ? " computes" : " does not compute") +
                                     " what the CPU computes: they differ by " + Number(report->difference) +
                                     ", at most " + Number(report->difference_max) + " is allowed" +
                                     TokensText(*report)};
    known_->Keep(subject.key, verdict);
  }
  Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + ": " + verdict.text);
  return verdict;
}

Result<OffloadedEngine> StageEngines::OpenThere(std::shared_ptr<const ModelFile> model, const EngineOptions& there,
                                                const Subject& subject) {
  OffloadOptions offload;
  offload.command = command_;
  offload.on_lost = [known = known_, subject, text = DeviceChoiceText(device_)](const Error& why) {
    Log(LogLevel::kWarning, "device", text + " is lost, its stage goes on without it: " + why.message);
    known->KeepLost(subject, "it failed while it computed: " + why.message);
  };
  Result<OffloadedEngine> opened = OpenOffloaded(std::move(model), there, std::move(offload));
  if (!opened.ok() && opened.error().code == ErrorCode::kUnavailable) {
    known_->KeepLost(subject, opened.error().message);
  }
  return opened;
}

}  // namespace shoal
