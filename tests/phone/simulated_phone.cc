// Sources of the numbers:
//   limiters     the settings of thermal-engine as public logs and notes quote them, each named at its phone; step_wise
//                as in the kernel's drivers/thermal/step_wise.c (5.10)
//   case         phones keep 2 to 3 W below 43 to 45 C of skin at 25 C of room and run models with 4 to 8 W
//                (omr.it.com, "Thermal throttling in mobile LLM inference": 6 to 8 K/W); a time constant of 540 s
//                (measured on a Galaxy S25+, reddit.com/r/programming 1oqs6j4)
//   die          a time constant of 6 to 9 s (the same); 90 C of the die at 46 C of the skin under full load of the CPU
//                (public notes of a Red Magic 10 Pro): 4 to 5 K/W
//   governor     docs.kernel.org/scheduler/schedutil.html
//   voltage      0.675 V at a third of the frequency, 1.0 V at the highest: the A76 cores' operating points in the
//                kernel's device tree of the RK3588
//   memory       two fifths of a micro-batch: decode of one stream waits for memory, of several it computes; estimated
#include "tests/phone/simulated_phone.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <utility>

namespace shoal {
namespace {

using Kind = PhoneLimiter::Kind;

constexpr int kSteps = 16;             // between the highest and the lowest frequency
constexpr double kHeadroom = 1.25;     // of schedutil
constexpr double kHalfLife_s = 0.032;  // of its utilisation
constexpr double kLeakDegrees = 40;    // by which leakage grows e-fold
constexpr int kFirstCpu = 4;
constexpr int kHighestKhz = 2'000'000;

PhoneModel Usual(const char* name) {
  PhoneModel phone;
  phone.name = name;
  phone.base_w = 0.5;
  phone.lowest_share = 0.3;
  phone.low_voltage = 0.675;
  phone.leak_w = 0.3;
  phone.memory_share = 0.4;
  phone.die_k_per_w = 5;
  phone.die_j_per_k = 1.5;
  phone.case_k_per_w = 7;
  phone.case_j_per_k = 77;
  return phone;
}

// thermal-engine's own settings for MSM8994, in its public source: three of the four big cores leave at 75 C of any of
// them, until 45 C. Four Cortex-A57 at 2 GHz: some 7 W.
PhoneModel Snapdragon810() {
  PhoneModel phone = Usual("Snapdragon 810");
  phone.peak_w = 7;
  phone.limiters = {{Kind::kUnplug, false, 75, 45, 1, 3, 1}};
  return phone;
}

// A Snapdragon 845 phone, as its log of 2019 quotes them: single steps of the big cluster by the skin, and cores 7 and
// 6 taken offline at 41 and 43 C. Frequencies of 2.8 GHz.
PhoneModel Snapdragon845() {
  PhoneModel phone = Usual("Snapdragon 845");
  phone.peak_w = 7;
  phone.limiters = {{Kind::kSingleStep, true, 39, 37, 2112.0 / 2803, 0, 2},
                    {Kind::kSingleStep, true, 43, 41, 1728.0 / 2803, 0, 2},
                    {Kind::kSingleStep, true, 45, 43, 1574.0 / 2803, 0, 2},
                    {Kind::kSingleStep, true, 48, 45, 1344.0 / 2803, 0, 2},
                    {Kind::kSingleStep, true, 51, 48, 1056.0 / 2803, 0, 2},
                    {Kind::kUnplug, true, 41, 39, 1, 1, 2},
                    {Kind::kUnplug, true, 43, 41, 1, 1, 2}};
  return phone;
}

// A Snapdragon 8 Elite phone (Red Magic 10 Pro), as public notes quote its SKIN_CPU_MONITOR: the big cluster's cap of
// 3.53 GHz by the skin. Cleared two degrees lower, as thermal-engine's examples do. Six cores at most 12 W.
PhoneModel Snapdragon8Elite() {
  PhoneModel phone = Usual("Snapdragon 8 Elite");
  phone.cores = 6;
  phone.peak_w = 12;
  phone.limiters = {{Kind::kMonitor, true, 43, 41, 2.40 / 3.53, 0, 2},
                    {Kind::kMonitor, true, 45, 43, 2.23 / 3.53, 0, 2},
                    {Kind::kMonitor, true, 47, 45, 2.00 / 3.53, 0, 2},
                    {Kind::kMonitor, true, 49, 47, 1.79 / 3.53, 0, 2},
                    {Kind::kMonitor, true, 53, 51, 1.55 / 3.53, 0, 2}};
  return phone;
}

// The kernel alone: 90 C of the die, looked at four times a second (mainline's device trees of Snapdragon phones).
PhoneModel MainlineLinux() {
  PhoneModel phone = Usual("mainline Linux");
  phone.peak_w = 9;
  phone.shows_trips = true;
  phone.limiters = {{Kind::kStepWise, false, 90, 88, 0.3, 0, 0.25}};
  return phone;
}

// The same with a fan: it never gets hot.
PhoneModel Cooled() {
  PhoneModel phone = MainlineLinux();
  phone.name = "cooled";
  phone.case_k_per_w = 1.5;
  return phone;
}

void Write(const std::string& path, long value) { std::ofstream(path, std::ios::trunc) << value << '\n'; }

}  // namespace

std::vector<PhoneModel> KnownPhones() {
  return {Snapdragon810(), Snapdragon845(), Snapdragon8Elite(), MainlineLinux(), Cooled()};
}

SimulatedPhone::SimulatedPhone(PhoneModel model, double ambient_c, std::string root)
    : model_(std::move(model)),
      ambient_c_(ambient_c),
      root_(std::move(root)),
      limiting_(model_.limiters.size()),
      die_c_(ambient_c),
      case_c_(ambient_c),
      peak_die_c_(ambient_c),
      peak_case_c_(ambient_c),
      online_(model_.cores) {
  for (Limiting& one : limiting_) one.before_c = ambient_c;
  const auto zone = [&](int number, const char* type) {
    const std::string folder = root_ + "/sys/class/thermal/thermal_zone" + std::to_string(number);
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/type") << type << '\n';
    return folder;
  };
  const std::string die = zone(0, "cpu-1-0-usr"), skin = zone(1, "xo-therm");
  for (const PhoneLimiter& limiter : model_.limiters) {
    if (!model_.shows_trips) break;
    const std::string trip = (limiter.of_case ? skin : die) + "/trip_point_0";
    std::ofstream(trip + "_type") << "passive\n";
    Write(trip + "_temp", std::lround(limiter.set_c * 1000));
  }
  Show();
}

std::vector<int> SimulatedPhone::cpus() const {
  std::vector<int> cpus;
  for (int i = 0; i < model_.cores; ++i) cpus.push_back(kFirstCpu + i);
  return cpus;
}

void SimulatedPhone::Show() {
  Write(root_ + "/sys/class/thermal/thermal_zone0/temp", std::lround(die_c_ * 1000));
  Write(root_ + "/sys/class/thermal/thermal_zone1/temp", std::lround(case_c_ * 1000));
  const long khz = std::lround(cap_ * kHighestKhz);
  if (std::exchange(shown_khz_, khz) == khz && shown_online_ == online_) return;
  shown_online_ = online_;
  for (int i = 0; i < model_.cores; ++i) {
    const std::string folder = root_ + "/sys/devices/system/cpu/cpu" + std::to_string(kFirstCpu + i) + "/cpufreq";
    if (i >= online_) {
      std::filesystem::remove_all(folder);
      continue;
    }
    std::filesystem::create_directories(folder);
    Write(folder + "/cpuinfo_max_freq", kHighestKhz);
    Write(folder + "/scaling_max_freq", khz);
  }
}

// The limiters that are due look at their sensors.
void SimulatedPhone::Look() {
  double cap = 1;
  int offline = 0;
  for (std::size_t i = 0; i < limiting_.size(); ++i) {
    const PhoneLimiter& limiter = model_.limiters[i];
    Limiting& one = limiting_[i];
    if (now_s_ >= one.due_s) {
      one.due_s = now_s_ + limiter.every_s;
      const double celsius = limiter.of_case ? case_c_ : die_c_;
      const double before = std::exchange(one.before_c, celsius);
      if (celsius >= limiter.set_c) one.is_set = true;
      if (celsius < limiter.clear_c) one.is_set = false;
      const bool lower =
          limiter.kind == Kind::kSingleStep ? celsius >= limiter.set_c : celsius >= limiter.set_c && celsius > before;
      const bool higher =
          limiter.kind == Kind::kSingleStep ? celsius < limiter.clear_c : celsius < limiter.set_c && celsius < before;
      one.steps = std::clamp(one.steps + (lower ? 1 : 0) - (higher ? 1 : 0), 0, kSteps);
    }
    const double stepped = 1 - (1 - model_.lowest_share) * one.steps / kSteps;
    switch (limiter.kind) {
      case Kind::kMonitor: cap = one.is_set ? std::min(cap, limiter.share) : cap; break;
      case Kind::kUnplug: offline += one.is_set ? limiter.cores : 0; break;
      case Kind::kSingleStep:
      case Kind::kStepWise: cap = std::min(cap, std::max(stepped, limiter.share)); break;
    }
  }
  cap_ = cap;
  online_ = std::max(1, model_.cores - offline);
}

// One step of power and heat.
double SimulatedPhone::Heat(bool computing) {
  const double above = (frequency_ - model_.lowest_share) / (1 - model_.lowest_share);
  const double volts = model_.low_voltage + (1 - model_.low_voltage) * std::clamp(above, 0.0, 1.0);
  const double cores = static_cast<double>(online_) / model_.cores;
  const double dynamic = computing ? model_.peak_w * cores * frequency_ * volts * volts : 0;
  const double leak = model_.leak_w * volts * std::exp((die_c_ - 50) / kLeakDegrees);
  const double to_case = (die_c_ - case_c_) / model_.die_k_per_w;
  die_c_ += kStep_s * (dynamic + leak - to_case) / model_.die_j_per_k;
  case_c_ += kStep_s * (to_case + model_.base_w - (case_c_ - ambient_c_) / model_.case_k_per_w) / model_.case_j_per_k;
  peak_die_c_ = std::max(peak_die_c_, die_c_);
  peak_case_c_ = std::max(peak_case_c_, case_c_);
  return dynamic + leak;
}

void SimulatedPhone::Run(double seconds, double batch_s, double rest) {
  const double end = now_s_ + seconds;
  const double decay = std::pow(0.5, kStep_s / kHalfLife_s);
  while (now_s_ < end) {
    Look();
    frequency_ = std::clamp(kHeadroom * utilisation_, model_.lowest_share, cap_);
    if (batch_left_ <= 0 && (rest <= 0 || now_s_ >= batch_begun_s_ + batch_s * (1 + rest))) {
      batch_left_ = batch_s;
      batch_begun_s_ = now_s_;
    }
    const bool computing = batch_left_ > 0;
    if (computing) {
      const double cores = static_cast<double>(online_) / model_.cores;
      const double speed = 1 / (model_.memory_share + (1 - model_.memory_share) / (cores * frequency_));
      batch_left_ -= kStep_s * speed;
      work_s_ += kStep_s * speed;
      busy_s_ += kStep_s;
    } else {
      rest_s_ += kStep_s;
    }
    utilisation_ = decay * utilisation_ + (1 - decay) * (computing ? frequency_ : 0);
    Heat(computing);
    now_s_ += kStep_s;
  }
}

}  // namespace shoal
