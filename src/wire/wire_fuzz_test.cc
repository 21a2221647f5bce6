// The fuzz target over its corpus and over every one-byte change of it; and the corpus against the encoder.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "runtime/rng.h"
#include "wire/test_messages.h"
#include "wire/wire_fuzz.cc"  // the target itself: it CHECKs what must hold

namespace shoal {
namespace {

void RunTarget(const test_messages::Bytes& bytes) { LLVMFuzzerTestOneInput(bytes.data(), bytes.size()); }

TEST(WireFuzz, EveryByteOfEverySeedSetToEveryValue) {
  int inputs = 0;
  for (const auto& [name, frame] : test_messages::SmallFrames()) {
    SCOPED_TRACE(name);
    for (std::size_t at = 0; at < frame.size(); ++at) {
      for (const int value : {0, 1, 2, 3, 0x3F, 0x7F, 0x80, 0xC0, 0xFE, 0xFF}) {
        test_messages::Bytes changed = frame;
        changed[at] = static_cast<std::uint8_t>(value);
        RunTarget(changed);
        ++inputs;
      }
    }
  }
  EXPECT_GT(inputs, 5000);
}

TEST(WireFuzz, RandomBytes) {
  Rng rng(4);
  for (int i = 0; i < 20'000; ++i) {
    test_messages::Bytes bytes(rng.Below(200));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(rng.Below(4) == 0 ? rng.Next() : rng.Below(3));
    RunTarget(bytes);
  }
  RunTarget({});
}

// SHOAL_FUZZ_SEEDS=<folder> writes the corpus there (tests/fuzz/wire); without it the seeds are only shown to be valid.
TEST(WireFuzz, SeedsAreValidFrames) {
  const char* folder = std::getenv("SHOAL_FUZZ_SEEDS");
  for (const auto& [name, frame] : test_messages::SmallFrames()) {
    EXPECT_TRUE(DecodeFrame(frame).ok()) << name;
    if (folder == nullptr) continue;
    std::ofstream file(std::string(folder) + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(frame.data()), static_cast<std::streamsize>(frame.size()));
    ASSERT_TRUE(file.good()) << name;
  }
}

}  // namespace
}  // namespace shoal
