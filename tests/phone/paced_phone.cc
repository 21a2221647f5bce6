// Reads its files every two seconds, as a node does, and asks the pacer.
#include "tests/phone/paced_phone.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "device/heat_sensors.h"

namespace shoal {
namespace {

constexpr double kBatch_s = 0.04;  // of a token of some gigabytes of weights
constexpr double kEvery_s = static_cast<double>(Pacer::kEveryUs) / 1e6;

}  // namespace

std::string MakePhoneFolder() {
  const std::filesystem::path memory = "/dev/shm", usual = std::filesystem::temp_directory_path();
  std::string folder = ((::access(memory.c_str(), W_OK) == 0 ? memory : usual) / "shoal-phone-XXXXXX").string();
  SHOAL_CHECK(::mkdtemp(folder.data()) != nullptr);
  return folder;
}

PacedRun RunPhone(const PhoneModel& model, double room_c, double seconds, Pacing pacing,
                  const std::optional<Pacer::Known>& known, const std::string& root) {
  SimulatedPhone phone(model, room_c, root);
  const HeatSensors sensors(SystemFiles(root), phone.cpus());
  Pacer pacer = known ? Pacer(*known) : Pacer();
  PacedRun run;
  while (phone.now_s() < seconds) {
    phone.Run(kEvery_s, kBatch_s, pacing == Pacing::kOn ? pacer.rest() : 0);
    phone.Show();
    const Pacer::Seen seen{sensors.Read(), phone.work_s(), phone.busy_s(), phone.rest_s()};
    pacer.Update(static_cast<TimeUs>(phone.now_s() * 1e6), seen);
    if (seen.heat.cap.value_or(1) < 0.99) run.limited_share += kEvery_s / seconds;
  }
  run.work_share = phone.work_s() / phone.now_s();
  run.peak_die_c = phone.peak_die_c();
  run.peak_case_c = phone.peak_case_c();
  run.rest_share = phone.rest_s() / phone.now_s();
  run.known = pacer.known();
  return run;
}

}  // namespace shoal
