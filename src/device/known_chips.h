// Well-known cores and chips, as data. What is not listed is unknown, not guessed.
//
// Core numbers: Linux, arch/arm64/include/asm/cputype.h; for Arm's cores also their Technical Reference Manuals. Which
// cores are in order: Arm's product pages. Chips: compatible strings of Linux's device trees (arch/arm64/boot/dts) and
// what Android's ro.soc.model says (arm-socs-table, freqbench, as named in tests/device/README.md).
#pragma once

#include <cstdint>
#include <string_view>

#include "device/cpuinfo.h"

namespace shoal {

// What a core was made for. A class is of the design; what a core is in its chip is CoreKind (device/topology.h).
enum class CoreClass : std::uint8_t { kUnknown, kLittle, kBig, kPrime };

struct KnownCore {
  std::uint32_t implementer, part;
  const char* name;  // "Cortex-A720"
  CoreClass core_class;
  const char* mcpu;  // what GCC and Clang call it; empty: they do not
};
// Null if the table does not have it.
const KnownCore* FindCore(const CoreId& id);

struct KnownChip {
  const char* name;  // "Snapdragon 8 Gen 3"
  const char* keys;  // words that name it, blank-separated, in lower case: "sm8650 pineapple"
};
// The chip that one of `text`'s words names: a compatible string ("qcom,sm8650"), a model ("SM8650"), the "Hardware" of
// /proc/cpuinfo. Null if none is known.
const KnownChip* FindChip(std::string_view text);

}  // namespace shoal
