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

  std::mutex mutex;
  Verdicts verdicts;
  const bool server;
  std::map<std::string, Verdict> server_verdicts;  // guarded by mutex
  std::optional<TimeUs> rests_until;               // guarded by mutex: of a server that failed
  std::string why;                                 // guarded by mutex
};

StageEngines::StageEngines(DeviceChoice device, const std::string& home, std::vector<std::string> command)
    : device_(std::move(device)),
      command_(command.empty() ? std::vector<std::string>{ProgramPath(), kOffloadCommand} : std::move(command)),
      known_(std::make_shared<Known>(home, device_.backend == "rpc")) {
  SHOAL_CHECK(!device_.none());
}

Result<std::unique_ptr<Engine>> StageEngines::Open(std::shared_ptr<const ModelFile> model,
                                                   const EngineOptions& options) {
  Result<std::unique_ptr<Engine>> offloaded = OpenOnDevice(model, options);
  if (offloaded.ok() || offloaded.error().code == ErrorCode::kCancelled) return offloaded;
  Log(LogLevel::kWarning, "device",
      DeviceChoiceText(device_) + " is not used, the CPU computes: " + offloaded.error().message);
  return Engine::Open(std::move(model), options);
}

Result<std::unique_ptr<Engine>> StageEngines::OpenOnDevice(std::shared_ptr<const ModelFile> model,
                                                           const EngineOptions& options) {
  EngineOptions there = options;
  there.device = device_;
  const std::string key = KeyOf(device_, *model, options.layers);
  std::optional<Verdict> verdict = known_->Find(key);
  if (!verdict) {
    const Result<DeviceReport> report = CheckOffloaded(model, there, command_);
    if (!report.ok() && report.error().code == ErrorCode::kNotFound) return report.error();  // it may be installed yet
    if (!report.ok()) {
      verdict = {false, report.error().message};
    } else {
      verdict = {report->passed(), report->device + (report->passed() ? " computes" : " does not compute") +
                                       " what the CPU computes: they differ by " + Number(report->difference) +
                                       ", at most " + Number(report->difference_max) + " is allowed"};
    }
    known_->Keep(key, *verdict);
    Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + ": " + verdict->text);
  }
  if (!verdict->passed) return Error{ErrorCode::kUnavailable, verdict->text};
  OffloadOptions offload;
  offload.command = command_;
  offload.on_lost = [known = known_, key, text = DeviceChoiceText(device_)](const Error& why) {
    Log(LogLevel::kWarning, "device", text + " is lost, its stage goes on without it: " + why.message);
    known->Keep(key, {false, "it failed while it computed: " + why.message});
  };
  Result<OffloadedEngine> opened = OpenOffloaded(std::move(model), there, std::move(offload));
  if (!opened.ok()) {
    if (opened.error().code == ErrorCode::kUnavailable) known_->Keep(key, {false, opened.error().message});
    return std::move(opened).error();
  }
  Log(LogLevel::kInfo, "device", DeviceChoiceText(device_) + " computes: " + opened->device);
  return std::move(opened->engine);
}

}  // namespace shoal
