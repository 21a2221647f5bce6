// `shoal service install`, `uninstall`: writes or removes what a plan says, and runs its commands.
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/service_plan.h"
#include "apps/cli/terminal.h"
#include "base/environment.h"
#include "base/program_path.h"
#include "device/command.h"

namespace shoal::cli {
namespace {

namespace fs = std::filesystem;
using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::seconds kCommandMax{60};  // what stops or restarts a node waits until it has departed
constexpr std::chrono::milliseconds kRetryPause{250};

Result<ServiceKind> KindHere(const std::string& given) {
  if (!given.empty()) {
    if (const auto kind = ServiceKindNamed(given)) return *kind;
    return Error{ErrorCode::kInvalidArgument, "'" + given + "' is none of termux, systemd, launchd"};
  }
  if (Environment("PREFIX").find("com.termux") != std::string::npos) return ServiceKind::kTermux;
#if defined(__APPLE__)
  return ServiceKind::kLaunchd;
#else
  return ServiceKind::kSystemd;
#endif
}

Result<ServicePlaces> PlacesHere(ServiceKind kind) {
  ServicePlaces places;
  places.home = Environment("HOME");
  places.prefix = Environment("PREFIX");
  places.user_id = static_cast<int>(::getuid());
  std::error_code error;
  places.shoal_home = fs::absolute(ShoalHome(), error).string();
  places.program = ProgramPath();
  if (const std::string opt = HomebrewOptPath(places.program); fs::exists(opt, error)) places.program = opt;
  places.config_home = Environment("XDG_CONFIG_HOME");
  if (places.config_home.empty()) places.config_home = places.home + "/.config";
  if (places.program.empty()) return Error{ErrorCode::kIo, "the system does not say where this program is"};
  if (places.home.empty()) return Error{ErrorCode::kInvalidArgument, "HOME is not set"};
  if (kind == ServiceKind::kTermux && places.prefix.empty()) {
    return Error{ErrorCode::kInvalidArgument, "PREFIX is not set: this is no shell of Termux"};
  }
  return places;
}

// Whole or not at all: beside its name first.
Status WriteServiceFile(const ServiceFile& file) {
  std::error_code error;
  fs::create_directories(fs::path(file.path).parent_path(), error);
  const std::string staged = file.path + ".new";
  std::ofstream out(staged, std::ios::binary | std::ios::trunc);
  out << file.text;
  out.close();
  if (!out || ::chmod(staged.c_str(), static_cast<mode_t>(file.mode)) != 0 ||
      std::rename(staged.c_str(), file.path.c_str()) != 0) {
    fs::remove(staged, error);
    return Error{ErrorCode::kIo, "cannot write " + file.path};
  }
  return {};
}

std::string Line(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& word : command) line += (line.empty() ? "" : " ") + word;
  return line;
}

bool Run(const ServiceCommand& command) {
  const auto deadline = SteadyClock::now() + command.retry_max;
  while (!RunCommandFor(command.words, kCommandMax)) {
    if (SteadyClock::now() + kRetryPause > deadline) return false;
    std::this_thread::sleep_for(kRetryPause);
  }
  return true;
}

// Says which failed; the others are run all the same.
bool RunAll(const std::vector<ServiceCommand>& commands) {
  bool all = true;
  for (const ServiceCommand& command : commands) {
    if (Run(command) || command.may_fail) continue;
    all = false;
    std::printf("did not work, try it by hand: %s\n", Line(command.words).c_str());
  }
  return all;
}

void PrintPlan(const ServicePlan& plan) {
  for (const ServiceFile& file : plan.files) {
    std::printf("--- %s (mode %o)\n%s", file.path.c_str(), static_cast<unsigned>(file.mode), file.text.c_str());
  }
  for (const ServiceCommand& command : plan.start) std::printf("run: %s\n", Line(command.words).c_str());
}

int Install(const ServicePlan& plan) {
  for (const ServiceFile& file : plan.files) {
    if (const Status written = WriteServiceFile(file); !written.ok()) return Fail(written.error());
    std::printf("wrote %s\n", file.path.c_str());
  }
  const bool started = RunAll(plan.start);
  std::printf("its log: %s\n", plan.log.c_str());
  for (const std::string& advice : plan.advice) std::printf("- %s\n", advice.c_str());
  return started ? kExitOk : kExitFailed;
}

int Uninstall(const ServicePlan& plan) {
  bool any = false;
  std::error_code error;
  for (const ServiceFile& file : plan.files) any = any || fs::exists(file.path, error);
  for (const std::string& folder : plan.folders) any = any || fs::exists(folder, error);
  if (!any) {
    std::puts("no service of shoal is installed here");
    return kExitOk;
  }
  (void)RunAll(plan.stop);
  for (const ServiceFile& file : plan.files) {
    if (fs::remove(file.path, error)) std::printf("removed %s\n", file.path.c_str());
  }
  for (const std::string& folder : plan.folders) {
    fs::remove_all(folder, error);
    if (error) return Fail({ErrorCode::kIo, "cannot remove " + folder});
  }
  return kExitOk;
}

}  // namespace

int RunService(const ServiceOptions& options) {
  const Result<ServiceKind> kind = KindHere(options.kind);
  if (!kind.ok()) return Fail(kind.error());
  const Result<ServicePlaces> places = PlacesHere(*kind);
  if (!places.ok()) return Fail(places.error());
  const ServicePlan plan = PlanService(*kind, *places, options.up_words);
  if (options.dry_run) {
    PrintPlan(plan);
    return kExitOk;
  }
  return options.uninstall ? Uninstall(plan) : Install(plan);
}

}  // namespace shoal::cli
