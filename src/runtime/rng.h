// Random numbers: a seeded stream for simulations and jitter, and a counter-based draw for sampling.
#pragma once

#include <array>
#include <cstdint>

namespace shoal {

// xoshiro256** (Blackman and Vigna, 2018), seeded through splitmix64. Not for secrets.
class Rng {
 public:
  explicit Rng(std::uint64_t seed);
  std::uint64_t Next();
  // Uniform in [0, bound). Precondition: bound > 0.
  std::uint64_t Below(std::uint64_t bound);
  // Uniform in [0, 1), 53 bits.
  double Uniform();

 private:
  std::uint64_t state_[4];
};

// One block of Philox4x32-10 (Salmon et al., SC 2011): 128 random bits for a 128-bit counter under a 64-bit key. Pure.
std::array<std::uint32_t, 4> Philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// A pure function: the same (seed, counter) gives the same 64 bits everywhere, whoever asks, in any order.
// The first 64 bits of Philox4x32 with the seed as key.
std::uint64_t CounterRandom(std::uint64_t seed, std::uint64_t counter);
// The same as a number in [0, 1), 53 bits.
double CounterUniform(std::uint64_t seed, std::uint64_t counter);

// A seed from the operating system.
std::uint64_t RandomSeed();

}  // namespace shoal
