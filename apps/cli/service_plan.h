// What has to be on a system so that a node starts with it and starts again when it ends: files and commands.
//
// Pure: says what to write and to run; apps/cli/service.cc does it. Termux: a service of termux-services (runit), a
// script of Termux:Boot, shortcuts of Termux:Widget. Linux: a unit of the user's systemd. macOS: a launch agent.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoal::cli {

enum class ServiceKind { kTermux, kSystemd, kLaunchd };
std::optional<ServiceKind> ServiceKindNamed(std::string_view name);  // "termux", "systemd", "launchd"

struct ServicePlaces {
  std::string program;      // absolute path of shoal
  std::string home;         // of the user
  std::string shoal_home;   // where the node keeps its state and, but for systemd, its log
  std::string prefix;       // Termux: $PREFIX
  std::string config_home;  // systemd: $XDG_CONFIG_HOME, usually ~/.config
  int user_id = 0;          // launchd: the user's domain
};

struct ServiceFile {
  std::string path;
  int mode = 0644;
  std::string text;
};

struct ServiceCommand {
  std::vector<std::string> words;
  bool may_fail = false;              // what it does may be done already
  std::chrono::seconds retry_max{0};  // for so long it is run again until it works: a supervisor looks now and then
};

struct ServicePlan {
  std::vector<ServiceFile> files;
  std::vector<std::string> folders;         // removed with all that is in them, after the files
  std::vector<ServiceCommand> start, stop;  // stop before the files are removed
  std::string log;                          // how to see it
  std::vector<std::string> advice;          // what only the user can do
};

// `up_words`: options of `shoal up`, each passed as it is.
ServicePlan PlanService(ServiceKind kind, const ServicePlaces& places, const std::vector<std::string>& up_words);

// The path of a program of Homebrew that an upgrade keeps: P/Cellar/NAME/VERSION/REST to P/opt/NAME/REST. Empty for
// other paths.
std::string HomebrewOptPath(const std::string& program);

}  // namespace shoal::cli
