// Two means that forget geometrically.
#include "node/draw_meter.h"

#include <algorithm>
#include <cmath>

namespace shoal {
namespace {

constexpr double kNewest = 0.2;       // the weight of the latest reading, once there are enough
constexpr double kActiveLeast = 0.1;  // watts

}  // namespace

bool DrawMeter::Mean::Add(double reading) {
  ++readings;
  value += (reading - value) * std::max(kNewest, 1.0 / readings);
  if (readings < kReadings || (told && std::abs(value - *told) <= kNews * *told)) return false;
  told = value;
  return true;
}

bool DrawMeter::Update(std::optional<double> watts, double busy) {
  if (!watts) return false;
  if (busy <= kIdleMax) return idle_.Add(*watts);
  if (busy < kBusyMin || !idle_.told) return false;
  return active_.Add(std::max((*watts - *idle_.told) / std::min(busy, 1.0), kActiveLeast));
}

}  // namespace shoal
