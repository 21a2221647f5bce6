// Fuzz target: the text of a beacon packet, as after opening its seal. What is read is written again as it was.
#include <cstdint>
#include <cstdlib>

#include "discovery/beacon_packet.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::optional<shoal::BeaconPacket> packet = shoal::DecodeBeaconText({data, size});
  if (!packet) return 0;
  const std::optional<shoal::BeaconPacket> again = shoal::DecodeBeaconText(shoal::EncodeBeaconText(*packet));
  if (again != packet) std::abort();
  return 0;
}
