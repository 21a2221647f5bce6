// xoshiro256**, splitmix64 and Philox4x32-10, after their papers. No state but the Rng's own.
#include "runtime/rng.h"

#include <bit>
#include <chrono>
#include <exception>
#include <random>

#include "base/check.h"

namespace shoal {
namespace {

// One step of splitmix64 (Steele, Lea and Flood, 2014): advances `state`, returns its mix.
std::uint64_t SplitMix64(std::uint64_t& state) {
  state += 0x9E3779B97F4A7C15U;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// The upper 53 bits as a number in [0, 1).
double UnitInterval(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

}  // namespace

Rng::Rng(std::uint64_t seed) {
  for (std::uint64_t& word : state_) word = SplitMix64(seed);
}

std::uint64_t Rng::Next() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

std::uint64_t Rng::Below(std::uint64_t bound) {
  SHOAL_CHECK(bound > 0);
  // Draws below 2^64 mod bound are refused, so that every remainder is equally likely.
  const std::uint64_t refused = (0 - bound) % bound;
  std::uint64_t draw = Next();
  while (draw < refused) draw = Next();
  return draw % bound;
}

double Rng::Uniform() { return UnitInterval(Next()); }

std::array<std::uint32_t, 4> Philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53U, kMultiplier1 = 0xCD9E8D57U;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9U, kWeyl1 = 0xBB67AE85U;
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

std::uint64_t CounterRandom(std::uint64_t seed, std::uint64_t counter) {
  const auto block = Philox4x32({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0, 0},
                                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return (std::uint64_t{block[1]} << 32) | block[0];
}

double CounterUniform(std::uint64_t seed, std::uint64_t counter) { return UnitInterval(CounterRandom(seed, counter)); }

std::uint64_t RandomSeed() {
  try {
    std::random_device device;
    const std::uint64_t high = device();
    return (high << 32) | device();
  } catch (const std::exception&) {
    // No entropy source: seeds are not secrets, so the clock will do.
    auto state = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    return SplitMix64(state);
  }
}

}  // namespace shoal
