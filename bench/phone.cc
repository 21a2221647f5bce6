// Pacing on simulated phones: tokens in 20 minutes and the peak temperature, without, with, and with what a first run
// has found out (a node keeps that), for each phone at three room temperatures. The phone is tests/phone; what reads
// its sensors and decides is the product's. `--json` prints one object with its checks.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/phone/paced_phone.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMinutes = 20, kRooms[] = {20, 25, 30};
constexpr double kGainMin = 1.15, kHarmlessMin = 0.98;

PacedRun RunIn(const PhoneModel& model, double room, Pacing pacing, const std::optional<Pacer::Known>& known = {}) {
  const std::string folder = MakePhoneFolder();
  const PacedRun run = RunPhone(model, room, kMinutes * 60, pacing, known, folder);
  std::filesystem::remove_all(folder);
  return run;
}

Json ToJson(const PacedRun& run) {
  return {{"work_share", run.work_share},
          {"peak_die_c", run.peak_die_c},
          {"peak_case_c", run.peak_case_c},
          {"limited_share", run.limited_share},
          {"rest_share", run.rest_share}};
}

Json Check(const std::string& name, double value, const char* bar, bool holds) {
  return {{"name", name}, {"value", std::round(value * 1000) / 1000}, {"bar", bar}, {"holds", holds}};
}

}  // namespace

int Main(bool json) {
  Json runs = Json::array(), checks = Json::array();
  double least = 1e9;
  for (const PhoneModel& model : KnownPhones()) {
    for (const double room : kRooms) {
      const PacedRun without = RunIn(model, room, Pacing::kOff), with = RunIn(model, room, Pacing::kOn);
      const PacedRun again = with.known ? RunIn(model, room, Pacing::kOn, with.known) : with;
      const double gain = with.work_share / without.work_share;
      runs.push_back({{"phone", model.name},
                      {"room_c", room},
                      {"without", ToJson(without)},
                      {"with", ToJson(with)},
                      {"again", ToJson(again)},
                      {"gain", gain},
                      {"gain_again", again.work_share / without.work_share}});
      const std::string where = model.name + " at " + std::to_string(static_cast<int>(room)) + " C";
      least = std::min(least, gain);
      if (model.name == "cooled") continue;
      checks.push_back(Check("tokens with pacing / without, " + where, gain, ">= 1.15", gain >= kGainMin));
      const double peak = again.peak_die_c - without.peak_die_c;
      checks.push_back(Check("peak of the die, the next time, - without, " + where, peak, "< 0", peak < 0));
    }
  }
  checks.push_back(Check("the least of all, the cooled one among them", least, ">= 0.98", least >= kHarmlessMin));
  bool all = true;
  for (const Json& check : checks) {
    all = all && check["holds"].get<bool>();
    if (json) continue;
    std::printf("%s %s: %.3f (bar %s)\n", check["holds"].get<bool>() ? "holds " : "MISSED",
                check["name"].get<std::string>().c_str(), check["value"].get<double>(),
                check["bar"].get<std::string>().c_str());
  }
  if (json) std::printf("%s\n", Json{{"bench", "phone"}, {"runs", runs}, {"checks", checks}}.dump(2).c_str());
  return all ? 0 : 1;
}

}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc > 1 && std::strcmp(argv[1], "--json") == 0); }
