// Utf8Joiner and StopFinder: however the bytes are cut, the same text comes out, and it is valid UTF-8.
//
// Input: byte 0: number of stops (mod 4), then each stop as a length byte and its bytes; a seed byte for the cuts; the
// rest is the stream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/detokenizer.h"

namespace {

struct Outcome {
  std::string text, stop;
  bool operator==(const Outcome&) const = default;
};

// Cuts after every `step` bytes; 0: not at all.
Outcome RunPieces(const std::vector<std::string>& stops, std::string_view bytes, std::size_t step) {
  shoal::Utf8Joiner joiner;
  shoal::StopFinder finder(stops);
  Outcome outcome;
  while (!bytes.empty()) {
    const std::size_t n = step == 0 ? bytes.size() : std::min(step, bytes.size());
    const auto result = finder.Add(joiner.Add(bytes.substr(0, n)));
    bytes.remove_prefix(n);
    outcome.text += result.text;
    if (result.stopped) return {outcome.text, result.stop};
  }
  const auto result = finder.Add(joiner.Finish());
  outcome.text += result.text;
  if (result.stopped) return {outcome.text, result.stop};
  outcome.text += finder.Finish();
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto take_byte = [&] {
    if (rest.empty()) return std::size_t{0};
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    return std::size_t{byte};
  };
  std::vector<std::string> stops(take_byte() % 4);
  for (std::string& stop : stops) {
    const std::size_t wanted = take_byte() % 16;
    const std::size_t n = std::min(wanted, rest.size());
    stop = std::string(rest.substr(0, n));
    rest.remove_prefix(n);
  }
  const std::size_t step = 1 + take_byte() % 7;
  const Outcome whole = RunPieces(stops, rest, 0);
  SHOAL_CHECK(RunPieces(stops, rest, step) == whole);
  SHOAL_CHECK(RunPieces(stops, rest, 1) == whole);

  // What was joined is valid: joining it again changes nothing.
  shoal::Utf8Joiner first, again;
  std::string joined = first.Add(rest);
  joined += first.Finish();
  std::string twice = again.Add(joined);
  twice += again.Finish();
  SHOAL_CHECK(twice == joined);
  return 0;
}
