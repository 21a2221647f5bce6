// Tables: the kernel's word, the HWCAP bit, our name; and the variants, best first.
#include "device/instruction_sets.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

namespace shoal {
namespace {

struct ArmFeature {
  const char* name;  // ours
  const char* word;  // in /proc/cpuinfo
  int word_index;    // 0: HWCAP, 1: HWCAP2
  int bit;
};
// Linux, arch/arm64/include/uapi/asm/hwcap.h and arch/arm64/kernel/cpuinfo.c.
constexpr ArmFeature kArmFeatures[] = {
    {"fp16", "asimdhp", 0, 10}, {"dotprod", "asimddp", 0, 20}, {"sve", "sve", 0, 22}, {"sve2", "sve2", 1, 1},
    {"i8mm", "i8mm", 1, 13},    {"bf16", "bf16", 1, 14},       {"sme", "sme", 1, 23}, {"sme2", "sme2", 1, 37},
};

struct X86Feature {
  const char* name;
  std::initializer_list<const char*> words;  // all of them
};
// Linux, arch/x86/include/asm/cpufeatures.h.
const X86Feature kX86Features[] = {
    {"sse4.2", {"sse4_2"}},
    {"avx", {"avx"}},
    {"f16c", {"f16c"}},
    {"fma", {"fma"}},
    {"bmi2", {"bmi2"}},
    {"avx2", {"avx2"}},
    {"avx_vnni", {"avx_vnni"}},
    {"avx512", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}},
    {"avx512_vbmi", {"avx512vbmi"}},
    {"avx512_vnni", {"avx512_vnni"}},
    {"avx512_bf16", {"avx512_bf16"}},
    {"amx_int8", {"amx_tile", "amx_int8"}},
};

struct Variant {
  const char* name;
  const char* flags;
  std::initializer_list<const char*> needs;
};
const Variant kArmVariants[] = {
    {"armv9.2_2", "-march=armv9.2-a+i8mm+sme", {"dotprod", "fp16", "i8mm", "sve", "sve2", "sme"}},
    {"armv8.6_2", "-march=armv8.2-a+dotprod+fp16+i8mm+sve2", {"dotprod", "fp16", "i8mm", "sve", "sve2"}},
    {"armv8.6_1", "-march=armv8.2-a+dotprod+fp16+i8mm+sve", {"dotprod", "fp16", "i8mm", "sve"}},
    {"armv8.6_0", "-march=armv8.2-a+dotprod+fp16+i8mm", {"dotprod", "fp16", "i8mm"}},
    {"armv8.2_3", "-march=armv8.2-a+dotprod+fp16+sve", {"dotprod", "fp16", "sve"}},
    {"armv8.2_2", "-march=armv8.2-a+dotprod+fp16", {"dotprod", "fp16"}},
    {"armv8.2_1", "-march=armv8.2-a+dotprod", {"dotprod"}},
    {"armv8.0_1", "-march=armv8-a", {}},
};
const Variant kX86Variants[] = {
    {"sapphirerapids", "-march=sapphirerapids", {"avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16", "amx_int8"}},
    {"zen4", "-march=znver4", {"avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16"}},
    {"cooperlake", "-march=cooperlake", {"avx512", "avx512_vnni", "avx512_bf16"}},
    {"icelake", "-march=icelake-client", {"avx512", "avx512_vbmi", "avx512_vnni"}},
    {"cascadelake", "-march=cascadelake", {"avx512", "avx512_vnni"}},
    {"cannonlake", "-march=cannonlake", {"avx512", "avx512_vbmi"}},
    {"skylakex", "-march=skylake-avx512", {"avx512"}},
    {"alderlake", "-march=alderlake", {"avx2", "fma", "f16c", "bmi2", "avx_vnni"}},
    {"haswell", "-march=haswell", {"avx2", "fma", "f16c", "bmi2"}},
    {"piledriver", "-march=bdver2", {"avx", "f16c", "fma"}},
    {"ivybridge", "-march=ivybridge", {"avx", "f16c"}},
    {"sandybridge", "-march=sandybridge", {"avx"}},
    {"sse42", "-march=nehalem", {"sse4.2"}},
    {"x64", "-march=x86-64", {}},
};

bool HasAll(const InstructionSets& sets, std::initializer_list<const char*> needs) {
  return std::all_of(needs.begin(), needs.end(), [&](const char* need) { return sets.count(need) > 0; });
}

}  // namespace

InstructionSets InstructionSetsOf(CpuArchitecture architecture, const std::vector<std::string>& words) {
  const std::set<std::string, std::less<>> given(words.begin(), words.end());
  InstructionSets sets;
  if (architecture == CpuArchitecture::kArm64) {
    for (const ArmFeature& feature : kArmFeatures) {
      if (given.count(feature.word) > 0) sets.insert(feature.name);
    }
  } else if (architecture == CpuArchitecture::kX86) {
    for (const X86Feature& feature : kX86Features) {
      if (HasAll(given, feature.words)) sets.insert(feature.name);
    }
  }
  return sets;
}

InstructionSets InstructionSetsOfHwcap(std::uint64_t hwcap, std::uint64_t hwcap2) {
  InstructionSets sets;
  for (const ArmFeature& feature : kArmFeatures) {
    if ((((feature.word_index == 0 ? hwcap : hwcap2) >> feature.bit) & 1) != 0) sets.insert(feature.name);
  }
  return sets;
}

std::optional<Hwcaps> ParseAuxv(std::string_view bytes) {
  constexpr std::uint64_t kHwcap = 16, kHwcap2 = 26;  // AT_HWCAP, AT_HWCAP2 (linux/auxvec.h)
  Hwcaps found;
  bool any = false;
  for (; bytes.size() >= 16; bytes.remove_prefix(16)) {
    std::uint64_t pair[2];
    std::memcpy(pair, bytes.data(), sizeof pair);
    if (pair[0] == kHwcap) {
      found.hwcap = pair[1];
      any = true;
    }
    if (pair[0] == kHwcap2) found.hwcap2 = pair[1];
  }
  if (!any) return std::nullopt;
  return found;
}

CpuVariant BestCpuVariant(CpuArchitecture architecture, const InstructionSets& sets) {
  const auto best = [&](const auto& variants) -> CpuVariant {
    for (const Variant& variant : variants) {
      if (HasAll(sets, variant.needs)) return {variant.name, variant.flags};
    }
    return {};
  };
  if (architecture == CpuArchitecture::kArm64) return best(kArmVariants);
  if (architecture == CpuArchitecture::kX86) return best(kX86Variants);
  return {};
}

}  // namespace shoal
