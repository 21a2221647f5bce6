// Fuzz target: any bytes as an ask and as an answer. What parses must be written as the same bytes.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "weights/peer_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  const auto same = [&](const std::vector<std::uint8_t>& again) {
    SHOAL_CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  };
  if (const auto ask = shoal::ParseWeightAsk(bytes); ask.ok()) same(shoal::Encode(*ask));
  if (const auto answer = shoal::ParseWeightAnswer(bytes); answer.ok()) same(shoal::Encode(*answer));
  return 0;
}
