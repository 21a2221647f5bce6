// Which vector instructions a CPU offers that matter to matrix work, and which of ggml's CPU variants they allow.
//
// From the kernel's names (/proc/cpuinfo), from HWCAP bits, from sysctl's names. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

// Short names, the same on every system: ARM "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2" "sme" "sme2"; x86 "sse4.2"
// "avx" "f16c" "fma" "avx2" "avx_vnni" "avx512" (F, BW, CD, DQ, VL) "avx512_vbmi" "avx512_vnni" "avx512_bf16"
// "amx_int8".
using InstructionSets = std::set<std::string, std::less<>>;

enum class CpuArchitecture : std::uint8_t { kUnknown, kArm64, kX86 };

// From words of "Features" or "flags".
InstructionSets InstructionSetsOf(CpuArchitecture architecture, const std::vector<std::string>& words);
// From the auxiliary vector's HWCAP and HWCAP2 of Linux on arm64 (asm/hwcap.h).
InstructionSets InstructionSetsOfHwcap(std::uint64_t hwcap, std::uint64_t hwcap2);
// HWCAP and HWCAP2 of /proc/self/auxv: pairs of 64-bit words, the machine's byte order. Empty if it has no HWCAP.
struct Hwcaps {
  std::uint64_t hwcap = 0, hwcap2 = 0;
};
std::optional<Hwcaps> ParseAuxv(std::string_view bytes);

// The best of ggml's CPU variants that may run here (ggml/src/CMakeLists.txt, and "armv8.6_0", which is i8mm without
// SVE), and compiler flags for one build that is for this CPU alone.
struct CpuVariant {
  std::string name;   // "armv8.6_0", "haswell"
  std::string flags;  // "-march=armv8.2-a+dotprod+fp16+i8mm"
};
CpuVariant BestCpuVariant(CpuArchitecture architecture, const InstructionSets& sets);

}  // namespace shoal
