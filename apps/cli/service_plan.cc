// One function a system. Sources: wiki.termux.com (Termux-services, Termux:Boot, Termux:Widget), sv(8), runsvdir(8),
// systemd.service(5), launchctl(1), launchd.plist(5).
#include "apps/cli/service_plan.h"

namespace shoal::cli {
namespace {

using Words = std::vector<std::string>;
using std::chrono::seconds;

constexpr const char* kStopSeconds = "30";  // a node departs for up to 10 s; runit alone would wait for 7
constexpr seconds kRunitLookMax{8};         // runsvdir looks for new services every 5 s
constexpr seconds kLaunchdStopMax{30};      // launchd kills after 20 s; until then the label is taken

// One word of a shell's line.
std::string ShellWord(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

// One word of ExecStart=: quotes, and what the unit's own expansions would take.
std::string UnitWord(const std::string& word) {
  std::string quoted = "\"";
  for (const char c : word) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (c == '%' || c == '$') quoted += c;
    quoted += c;
  }
  return quoted + "\"";
}

std::string XmlText(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&')
      escaped += "&amp;";
    else if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else
      escaped += c;
  }
  return escaped;
}

Words UpCommand(const ServicePlaces& places, const Words& up_words, bool own_log) {
  Words command{places.program, "up", "--quiet"};
  if (own_log) command.insert(command.end(), {"--log-file", places.shoal_home + "/shoal.log"});
  command.insert(command.end(), up_words.begin(), up_words.end());
  return command;
}

ServicePlan PlanTermux(const ServicePlaces& places, const Words& up_words) {
  const std::string shell = "#!" + places.prefix + "/bin/sh\n# Written by `shoal service install`.\n";
  std::string line;
  for (const std::string& word : UpCommand(places, up_words, true)) line += " " + ShellWord(word);
  const std::string shortcuts = places.home + "/.shortcuts/";
  // Only sessions that began after termux-services was installed have SVDIR; Termux:Widget's scripts never do.
  const std::string services = places.prefix + "/var/service";
  const std::string folder = services + "/shoal";
  const std::string exports = "export SVDIR=" + ShellWord(services) + " SVWAIT=" + kStopSeconds + "\n";
  const auto runit = [&](Words words) {
    words.insert(words.begin(), {"env", "SVDIR=" + services, std::string("SVWAIT=") + kStopSeconds});
    return words;
  };
  ServicePlan plan;
  // Without the wake lock Android lets the processor sleep as soon as the screen is dark.
  plan.files.push_back({folder + "/run", 0755,
                        shell + "export HOME=" + ShellWord(places.home) + "\nexport SHOAL_HOME=" +
                            ShellWord(places.shoal_home) + "\ntermux-wake-lock\nexec" + line + "\n"});
  plan.files.push_back({places.home + "/.termux/boot/shoal", 0755,
                        shell + "termux-wake-lock\n. " + ShellWord(places.prefix + "/etc/profile") + "\n"});
  // Where runit does not run, it starts the service by itself.
  plan.files.push_back(
      {shortcuts + "shoal start", 0755, shell + exports + "termux-wake-lock\nsv up shoal || service-daemon start\n"});
  plan.files.push_back({shortcuts + "shoal stop", 0755, shell + exports + "sv stop shoal\ntermux-wake-unlock\n"});
  plan.files.push_back({shortcuts + "shoal status", 0755,
                        shell + "export SHOAL_HOME=" + ShellWord(places.shoal_home) + "\n" + ShellWord(places.program) +
                            " status\nread -r _\n"});
  plan.folders = {folder};
  plan.start = {{runit({"service-daemon", "start"}), true},
                {runit({"sv-enable", "shoal"}), false, kRunitLookMax},
                {runit({"sv", "restart", "shoal"})}};
  // Both fail where runit does not run. Without its folder runit forgets the service.
  plan.stop = {
      {runit({"sv-disable", "shoal"}), true}, {runit({"sv", "shutdown", "shoal"}), true}, {{"termux-wake-unlock"}}};
  plan.log = "less " + places.shoal_home + "/shoal.log";
  plan.advice = {
      "to start it with the phone: install the app Termux:Boot and open it once",
      "to start and stop it from the home screen: install the app Termux:Widget",
      "for it to know the battery: install the app Termux:API; the package termux-api alone cannot ask",
      "Settings > Apps > Termux > Battery > Unrestricted",
      "Android 12 and newer, once, over adb: settings put global settings_enable_monitor_phantom_procs false"};
  return plan;
}

ServicePlan PlanSystemd(const ServicePlaces& places, const Words& up_words) {
  std::string line;
  for (const std::string& word : UpCommand(places, up_words, false)) line += (line.empty() ? "" : " ") + UnitWord(word);
  ServicePlan plan;
  plan.files.push_back({places.config_home + "/systemd/user/shoal.service", 0644,
                        "# Written by `shoal service install`.\n"
                        "[Unit]\nDescription=shoal: this device as a node of its cluster\n\n"
                        "[Service]\nEnvironment=" +
                            UnitWord("SHOAL_HOME=" + places.shoal_home) + "\nExecStart=" + line +
                            "\nRestart=always\nRestartSec=3\nTimeoutStopSec=" + kStopSeconds +
                            "\n\n"
                            "[Install]\nWantedBy=default.target\n"});
  plan.start = {{{"systemctl", "--user", "daemon-reload"}},
                {{"systemctl", "--user", "enable", "shoal.service"}},
                {{"systemctl", "--user", "restart", "shoal.service"}}};
  plan.stop = {{{"systemctl", "--user", "disable", "--now", "shoal.service"}}};
  plan.log = "journalctl --user -u shoal";
  plan.advice = {"to keep it when you log out: loginctl enable-linger"};
  return plan;
}

ServicePlan PlanLaunchd(const ServicePlaces& places, const Words& up_words) {
  std::string words;
  for (const std::string& word : UpCommand(places, up_words, true)) {
    words += "    <string>" + XmlText(word) + "</string>\n";
  }
  const std::string path = places.home + "/Library/LaunchAgents/shoal.node.plist";
  const std::string domain = "gui/" + std::to_string(places.user_id);
  ServicePlan plan;
  plan.files.push_back({path, 0644,
                        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                        "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" "
                        "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n"
                        "<plist version=\"1.0\">\n<dict>\n"
                        "  <key>Label</key>\n  <string>shoal.node</string>\n"
                        "  <key>ProgramArguments</key>\n  <array>\n" +
                            words +
                            "  </array>\n"
                            "  <key>EnvironmentVariables</key>\n  <dict>\n    <key>SHOAL_HOME</key>\n    <string>" +
                            XmlText(places.shoal_home) +
                            "</string>\n  </dict>\n"
                            "  <key>RunAtLoad</key>\n  <true/>\n"
                            "  <key>KeepAlive</key>\n  <true/>\n"
                            "</dict>\n</plist>\n"});
  // A label that is loaded keeps the definition it was loaded with, and cannot be loaded again; RunAtLoad starts it.
  const Words unload{"launchctl", "bootout", domain + "/shoal.node"};
  plan.start = {{unload, true}, {{"launchctl", "bootstrap", domain, path}, false, kLaunchdStopMax}};
  plan.stop = {{unload}};
  plan.log = "less " + places.shoal_home + "/shoal.log";
  return plan;
}

}  // namespace

std::optional<ServiceKind> ServiceKindNamed(std::string_view name) {
  if (name == "termux") return ServiceKind::kTermux;
  if (name == "systemd") return ServiceKind::kSystemd;
  if (name == "launchd") return ServiceKind::kLaunchd;
  return std::nullopt;
}

ServicePlan PlanService(ServiceKind kind, const ServicePlaces& places, const Words& up_words) {
  switch (kind) {
    case ServiceKind::kTermux: return PlanTermux(places, up_words);
    case ServiceKind::kLaunchd: return PlanLaunchd(places, up_words);
    case ServiceKind::kSystemd: break;
  }
  return PlanSystemd(places, up_words);
}

std::string HomebrewOptPath(const std::string& program) {
  static constexpr std::string_view kCellar = "/Cellar/";
  const std::size_t cellar = program.find(kCellar);
  if (cellar == std::string::npos) return "";
  const std::size_t name = cellar + kCellar.size();
  const std::size_t version = program.find('/', name);
  if (version == std::string::npos) return "";
  const std::size_t rest = program.find('/', version + 1);
  if (rest == std::string::npos) return "";
  return program.substr(0, cellar) + "/opt/" + program.substr(name, version - name) + program.substr(rest);
}

}  // namespace shoal::cli
