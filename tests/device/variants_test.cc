// The CPU backends that are built (cmake/cpu_variants.txt) are those that `shoal device` knows, each for the same CPUs.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "device/instruction_sets.h"

namespace shoal {
namespace {

struct Backend {
  CpuArchitecture architecture;
  std::string name, flags;
  InstructionSets needs;
};

// ggml's word for what a CPU must have, in ours.
const std::map<std::string, std::string> kSets = {
    {"GGML_USE_DOTPROD", "dotprod"},
    {"GGML_USE_FP16_VECTOR_ARITHMETIC", "fp16"},
    {"GGML_USE_SVE", "sve"},
    {"GGML_USE_SVE2", "sve2"},
    {"GGML_USE_MATMUL_INT8", "i8mm"},
    {"GGML_USE_SME", "sme"},
    {"GGML_SSE42", "sse4.2"},
    {"GGML_AVX", "avx"},
    {"GGML_F16C", "f16c"},
    {"GGML_FMA", "fma"},
    {"GGML_BMI2", "bmi2"},
    {"GGML_AVX2", "avx2"},
    {"GGML_AVX_VNNI", "avx_vnni"},
    {"GGML_AVX512", "avx512"},
    {"GGML_AVX512_VBMI", "avx512_vbmi"},
    {"GGML_AVX512_VNNI", "avx512_vnni"},
    {"GGML_AVX512_BF16", "avx512_bf16"},
    {"GGML_AMX_TILE", "amx_int8"},
    {"GGML_AMX_INT8", "amx_int8"},
};

std::vector<Backend> ReadBackends() {
  std::vector<Backend> backends;
  std::ifstream file(SHOAL_CPU_VARIANTS_FILE);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string architecture, bar, word;
    Backend backend;
    words >> architecture >> bar >> backend.name >> bar;
    backend.architecture = architecture == "arm64" ? CpuArchitecture::kArm64 : CpuArchitecture::kX86;
    while (words >> word && word != "|") backend.flags += (backend.flags.empty() ? "" : " ") + word;
    while (words >> word) {
      EXPECT_TRUE(kSets.contains(word)) << word;
      if (kSets.contains(word)) backend.needs.insert(kSets.at(word));
    }
    backends.push_back(std::move(backend));
  }
  return backends;
}

TEST(CpuVariants, TheBestForACpuThatHasJustWhatABackendNeedsIsThatBackend) {
  const std::vector<Backend> backends = ReadBackends();
  ASSERT_GE(backends.size(), 20U);
  for (const Backend& backend : backends) {
    const CpuVariant best = BestCpuVariant(backend.architecture, backend.needs);
    EXPECT_EQ(best.name, backend.name);
    // On ARM one build for the device has the same flags; on x86 it is also tuned for the CPU.
    if (backend.architecture == CpuArchitecture::kArm64) { EXPECT_EQ(best.flags, backend.flags); }
  }
}

// Each line ggml_add_cpu_backend_variant(NAME FEATURE...) of ggml's own file for x86 and for arm64 Linux.
TEST(CpuVariants, ThoseOfGgmlsOwnListAreBuilt) {
  const std::set<std::string> without = {"armv9.2_1"};  // cpu_variants.txt says why
  const std::set<std::string> bases = {"x64", "armv8.0_1"};
  std::map<std::string, InstructionSets> ours;
  for (const Backend& backend : ReadBackends()) ours[backend.name] = backend.needs;
  std::ifstream file(SHOAL_GGML_VARIANTS_FILE);
  const std::string call = "ggml_add_cpu_backend_variant(";
  std::size_t found = 0;
  bool is_x86 = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find("STREQUAL \"") != std::string::npos) is_x86 = line.find("\"x86\"") != std::string::npos;
    const std::size_t at = line.find(call);
    const std::size_t end = line.find(')');
    if (at == std::string::npos || end == std::string::npos) continue;
    std::istringstream words(line.substr(at + call.size(), end - at - call.size()));
    std::string name;
    words >> name;
    const bool is_here = is_x86 || name.starts_with("armv");
    if (!is_here || without.contains(name) || bases.contains(name)) continue;
    InstructionSets needs;
    for (std::string word; words >> word;) needs.insert(kSets.at((is_x86 ? "GGML_" : "GGML_USE_") + word));
    EXPECT_EQ(ours[name], needs) << name;
    ++found;
  }
  EXPECT_GE(found, 19U);
}

TEST(CpuVariants, EightBitMatricesWithoutSveAreNotTakenForAnOlderCpu) {
  const std::vector<Backend> backends = ReadBackends();
  const bool listed = std::any_of(backends.begin(), backends.end(), [](const Backend& backend) {
    return backend.needs.contains("i8mm") && !backend.needs.contains("sve");
  });
  EXPECT_TRUE(listed);
}

}  // namespace
}  // namespace shoal
