// What a device takes from its battery awake, and what more while its stages compute: from readings of the battery, and
// how much of the time before each of them stages computed.
//
// A reading counts for one or the other only where it is clear which. What was found stays when a charger comes. Pure.
#pragma once

#include <optional>

namespace shoal {

class DrawMeter {
 public:
  static constexpr double kIdleMax = 0.05, kBusyMin = 0.5;  // share of the time
  static constexpr int kReadings = 3;                       // of each kind, before anything is said
  static constexpr double kNews = 0.1;                      // a share by which a figure must change to be news

  // `watts`: of the whole device now; empty: not known, or it is fed. `busy`: share of the time since the last call in
  // which stages computed. True when what is known is news.
  bool Update(std::optional<double> watts, double busy);

  // Empty: not known yet.
  std::optional<double> idle_w() const { return idle_.told; }
  std::optional<double> active_w() const { return active_.told; }

 private:
  struct Mean {
    double value = 0;
    int readings = 0;
    std::optional<double> told;
    bool Add(double reading);
  };
  Mean idle_, active_;
};

}  // namespace shoal
