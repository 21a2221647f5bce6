// A phone in virtual time: power by frequency, heat in two nodes (the die and the case), the system's limiter, the
// frequency governor; and stages that compute micro-batches on its fast cores.
//
// It shows its temperatures and limits as files of /sys below a folder, which product code reads. Where its numbers
// come from stands in simulated_phone.cc, at each phone.
//
//   power        cores × peak_w / cores_max × f × (V(f) / V(1))² while they compute, plus leakage that grows with heat
//   heat         die -> case -> air, a resistance and a capacity each
//   governor     schedutil: utilisation with a half-life of 32 ms, frequency 1.25 times that
//   micro-batch  memory_share of it takes the same time at every frequency, the rest goes with cores × frequency
#pragma once

#include <string>
#include <vector>

namespace shoal {

// What the system does when a sensor gets hot.
struct PhoneLimiter {
  enum class Kind {
    kMonitor,     // thresholds that set and clear a cap: thermal-engine's "monitor"
    kSingleStep,  // a step lower at each look above the set point, down to a floor; one higher below the clear point:
                  // thermal-engine's "ss"
    kStepWise,    // the kernel's step_wise: a step lower while it is above the trip point and rising, one higher below
                  // it and falling
    kUnplug,      // thresholds that take cores offline and bring them back
  };
  Kind kind = Kind::kMonitor;
  bool of_case = true;  // the sensor: case, else die
  double set_c = 0, clear_c = 0;
  double share = 1;  // of the highest frequency: cap, or floor of the steps
  int cores = 0;     // taken offline
  double every_s = 1;
};

struct PhoneModel {
  std::string name;
  int cores = 4;            // fast ones
  double peak_w = 0;        // all of them at their highest frequency
  double base_w = 0;        // the rest of the phone, awake
  double lowest_share = 0;  // the lowest frequency
  double low_voltage = 0;   // share of the highest voltage, at the lowest frequency
  double leak_w = 0;        // of the die at 50 C
  double memory_share = 0;
  double die_k_per_w = 0, die_j_per_k = 0, case_k_per_w = 0, case_j_per_k = 0;
  bool shows_trips = false;  // the limiter's trip points stand in /sys
  std::vector<PhoneLimiter> limiters;
};

// Phones whose limiters' settings are public, and one that cools well.
std::vector<PhoneModel> KnownPhones();

class SimulatedPhone {
 public:
  static constexpr double kStep_s = 0.001;

  // `root`: an empty folder for its /sys.
  SimulatedPhone(PhoneModel model, double ambient_c, std::string root);

  // Runs `seconds` of virtual time: micro-batches of `batch_s` seconds at full speed, each at the earliest (1 + rest)
  // times that after the one before began.
  void Run(double seconds, double batch_s, double rest);
  // Writes temperatures and limits into the folder, as far as they changed.
  void Show();

  double now_s() const { return now_s_; }
  double work_s() const { return work_s_; }  // seconds of work at full speed that are done
  double busy_s() const { return busy_s_; }
  double rest_s() const { return rest_s_; }
  double peak_die_c() const { return peak_die_c_; }
  double peak_case_c() const { return peak_case_c_; }
  std::vector<int> cpus() const;

 private:
  struct Limiting {
    int steps = 0;        // of kSingleStep and kStepWise
    bool is_set = false;  // of kMonitor and kUnplug
    double before_c = 0;
    double due_s = 0;
  };
  void Look();
  double Heat(bool computing);

  const PhoneModel model_;
  const double ambient_c_;
  const std::string root_;
  std::vector<Limiting> limiting_;
  double now_s_ = 0, work_s_ = 0, busy_s_ = 0, rest_s_ = 0;
  double die_c_, case_c_, peak_die_c_, peak_case_c_;
  double utilisation_ = 1, frequency_ = 1, cap_ = 1;
  int online_;
  double batch_left_ = 0, batch_begun_s_ = 0;  // of the micro-batch at hand
  long shown_khz_ = -1;
  int shown_online_ = -1;
};

}  // namespace shoal
