// Some kernels are there and say what they are; names of files give names of variants.
#include "engine/cpu_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace shoal {
namespace {

TEST(CpuKernels, AreLoadedAndSayWhatTheyHave) {
  const Result<CpuKernels>& kernels = LoadedCpuKernels();
  ASSERT_TRUE(kernels.ok()) << kernels.error().message;
  EXPECT_FALSE(kernels->variant.empty());
#if defined(__aarch64__)
  const char* always = "NEON";
#elif defined(__x86_64__)
  const char* always = "SSE3";
#else
  const char* always = "REPACK";
#endif
  EXPECT_NE(std::find(kernels->features.begin(), kernels->features.end(), always), kernels->features.end())
      << CpuKernelsText(*kernels);
  EXPECT_EQ(kernels->file.empty(), kernels->variant == "built in") << kernels->file;
}

TEST(CpuKernels, TextOfThem) {
  EXPECT_EQ(CpuKernelsText({"armv8.6_0", "/x/libggml-cpu-armv8.6_0.so", {"NEON", "MATMUL_INT8"}}),
            "armv8.6_0 (NEON MATMUL_INT8)");
}

TEST(CpuVariantOfFile, IsInItsName) {
  EXPECT_EQ(CpuVariantOfFile("/opt/shoal/libggml-cpu-armv8.6_0.so"), "armv8.6_0");
  EXPECT_EQ(CpuVariantOfFile("libggml-cpu.so"), "base");
  EXPECT_EQ(CpuVariantOfFile("libggml-base.so"), "");
  EXPECT_EQ(CpuVariantOfFile("libggml-cpu-.so"), "");
  EXPECT_EQ(CpuVariantOfFile("libggml-cpu-zen4.txt"), "");
}

}  // namespace
}  // namespace shoal
