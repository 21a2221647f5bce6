// Some kernels are there and say what they are; names of files give names of variants.
#include "engine/cpu_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/environment.h"
#include "base/test_folder.h"

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

// Each look opens every library, and runs what it does when it is opened.
TEST(CpuBackendFiles, AreLookedAtOnceAProcess) {
  const TestFolder folder;
  const std::string file = folder.path() + "/libggml-cpu.so", before = Environment(kBackendsFolderVariable);
  std::ofstream(file) << "for every CPU";
  ::setenv(kBackendsFolderVariable, folder.path().c_str(), 1);
  ASSERT_EQ(CpuBackendFiles().size(), 1U);
  EXPECT_EQ(CpuBackendFiles()[0].variant, "base");
  std::filesystem::remove(file);
  EXPECT_EQ(CpuBackendFiles().size(), 1U);
  ::setenv(kBackendsFolderVariable, before.c_str(), 1);  // empty is as if it were not set
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
