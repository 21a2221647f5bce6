// Verdicts of this machine's devices are kept on disk; those of servers only in this process.
#include "offload/stage_engines.h"

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

// Everything that a verdict depends on.
std::string KeyOf(const DeviceChoice& device, const ModelFile& model, LayerRange layers) {
  const ModelInfo& info = model.info;
  return DeviceChoiceText(device) + " | " + DeviceFingerprint(device) + " | " + info.architecture + " " +
         info.quantization + " " + std::to_string(info.n_embd) + (layers.last == info.n_layer ? " with head" : "");
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

}  // namespace

struct StageEngines::Known {
  Known(const std::string& home, bool is_server) : verdicts(home), server(is_server) {}

  std::optional<Verdict> Find(const std::string& key) {
    const std::lock_guard lock(mutex);
    if (rests_until && RealClock().Now() < *rests_until) return Verdict{false, why};
    if (!server) return verdicts.Find(key);
    const auto found = server_verdicts.find(key);
    return found == server_verdicts.end() ? std::nullopt : std::optional(found->second);
  }

  void Keep(const std::string& key, const Verdict& verdict) {
    const std::lock_guard lock(mutex);
    if (!server) return verdicts.Keep(key, verdict);
    if (verdict.passed) server_verdicts[key] = verdict;
    if (verdict.passed) return;
    rests_until = RealClock().Now() + kServerRestUs;
    why = verdict.text;
  }

  void Set(const DeviceState& now) {
    std::function<void()> tell;
    {
      const std::lock_guard lock(mutex);
      if (state.use == now.use && state.text == now.text) return;
      state = now;
      tell = changed;
    }
    if (tell) tell();
  }

  std::mutex mutex;
  DeviceState state;              // guarded by mutex
  std::function<void()> changed;  // guarded by mutex
  Verdicts verdicts;
  const bool server;
  std::map<std::string, Verdict> server_verdicts;  // guarded by mutex
  std::optional<TimeUs> rests_until;               // guarded by mutex: of a server that failed
  std::string why;                                 // guarded by mutex
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
  const std::string key = KeyOf(device_, *model, options.layers);
  const Result<Verdict> verdict = VerdictOf(model, there, key);
  if (!verdict.ok() && verdict.error().code == ErrorCode::kCancelled) return verdict.error();
  Error why;
  if (verdict.ok() && verdict->passed) {
    Result<OffloadedEngine> opened = OpenThere(model, there, key);
    if (opened.ok()) {
      known_->Set({DeviceState::Use::kComputes, opened->device});
      Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + " computes: " + opened->device);
      return std::move(opened->engine);
    }
    why = opened.error();
    if (why.code == ErrorCode::kCancelled) return why;
  } else {
    why = verdict.ok() ? Error{ErrorCode::kUnavailable, verdict->text} : verdict.error();
  }
  known_->Set({DeviceState::Use::kFailed, why.message});
  Log(LogLevel::kWarning, "device", DeviceChoiceText(device_) + " is not used, the CPU computes: " + why.message);
  return Engine::Open(std::move(model), options);
}

Result<std::unique_ptr<Engine>> StageEngines::OpenForSpeed(std::shared_ptr<const ModelFile> model,
                                                           const EngineOptions& options) {
  if (device_.layers > 0) {
    return Error{ErrorCode::kUnsupported, "the CPU computes a part of each stage, however long it is"};
  }
  if (known_->server) return Error{ErrorCode::kUnsupported, "an RPC server serves one stage at a time"};
  const std::string key = KeyOf(device_, *model, options.layers);
  const std::optional<Verdict> verdict = known_->Find(key);
  if (verdict && !verdict->passed) {
    known_->Set({DeviceState::Use::kFailed, verdict->text});
    return Error{ErrorCode::kUnavailable, verdict->text};
  }
  EngineOptions there = OnDevice(options);
  there.on_progress = [this](float) { return !closing_; };
  SHOAL_ASSIGN_OR_RETURN(OffloadedEngine opened, OpenThere(std::move(model), there, key));
  return std::move(opened.engine);
}

std::string StageEngines::SpeedKey() const { return State().use == DeviceState::Use::kFailed ? "" : speed_key_; }

DeviceState StageEngines::State() const {
  const std::lock_guard lock(known_->mutex);
  return known_->state;
}

void StageEngines::OnChange(std::function<void()> changed) {
  const std::lock_guard lock(known_->mutex);
  known_->changed = std::move(changed);
}

EngineOptions StageEngines::OnDevice(const EngineOptions& options) const {
  EngineOptions there = options;
  there.device = device_;
  return there;
}

Result<Verdict> StageEngines::VerdictOf(const std::shared_ptr<const ModelFile>& model, const EngineOptions& there,
                                        const std::string& key) {
  if (const std::optional<Verdict> kept = known_->Find(key)) return *kept;
  const Result<DeviceReport> report = CheckOffloaded(model, there, command_);
  if (!report.ok() && report.error().code == ErrorCode::kNotFound) return report.error();
  if (!report.ok() && report.error().code == ErrorCode::kCancelled) return report.error();
  Verdict verdict;
  if (!report.ok()) {
    verdict = {false, report.error().message};
  } else {
    verdict = {report->passed(), report->device + (report->passed() ? " computes" : " does not compute") +
                                     " what the CPU computes: they differ by " + Number(report->difference) +
                                     ", at most " + Number(report->difference_max) + " is allowed"};
  }
  known_->Keep(key, verdict);
  Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + ": " + verdict.text);
  return verdict;
}

Result<OffloadedEngine> StageEngines::OpenThere(std::shared_ptr<const ModelFile> model, const EngineOptions& there,
                                                const std::string& key) {
  OffloadOptions offload;
  offload.command = command_;
  offload.on_lost = [known = known_, key, text = DeviceChoiceText(device_)](const Error& why) {
    Log(LogLevel::kWarning, "device", text + " is lost, its stage goes on without it: " + why.message);
    known->Keep(key, {false, "it failed while it computed: " + why.message});
    known->Set({DeviceState::Use::kFailed, why.message});
  };
  Result<OffloadedEngine> opened = OpenOffloaded(std::move(model), there, std::move(offload));
  if (!opened.ok() && opened.error().code == ErrorCode::kUnavailable) {
    known_->Keep(key, {false, opened.error().message});
    known_->Set({DeviceState::Use::kFailed, opened.error().message});
  }
  return opened;
}

}  // namespace shoal
