// A simulated phone that works without a pause, with the product's sensors and pacing, or without.
#pragma once

#include <optional>
#include <string>

#include "node/pacer.h"
#include "tests/phone/simulated_phone.h"

namespace shoal {

struct PacedRun {
  double work_share = 0;  // work done a second, of full speed
  double peak_die_c = 0, peak_case_c = 0;
  double limited_share = 0;           // of the time with a lowered frequency or cores offline
  double rest_share = 0;              // of the time at rest
  std::optional<Pacer::Known> known;  // at its end
};

enum class Pacing { kOff, kOn };

// Makes an empty folder, in memory where the system has such a place; the caller removes it.
std::string MakePhoneFolder();

// `known`: of an earlier run. `root`: an empty folder.
PacedRun RunPhone(const PhoneModel& model, double room_c, double seconds, Pacing pacing,
                  const std::optional<Pacer::Known>& known, const std::string& root);

}  // namespace shoal
