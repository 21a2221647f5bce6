// Pinning a thread to the CPUs this process may use.
#include "device/cpu_affinity.h"

#include <gtest/gtest.h>

#include <thread>

namespace shoal {
namespace {

TEST(CheckCpus, RefusesNonsense) {
  EXPECT_TRUE(CheckCpus(std::vector<int>{3, 1, 2}).ok());
  EXPECT_FALSE(CheckCpus(std::vector<int>{-1}).ok());
  EXPECT_FALSE(CheckCpus(std::vector<int>{kCpusMax}).ok());
  EXPECT_FALSE(CheckCpus(std::vector<int>{1, 1}).ok());
}

#if defined(__linux__)
TEST(PinThisThread, MovesOnlyTheCaller) {
  const std::vector<int> before = AllowedCpus();
  ASSERT_FALSE(before.empty());
  std::thread([&] {
    ASSERT_TRUE(PinThisThread(std::vector<int>{before.back()}).ok());
    EXPECT_EQ(AllowedCpus(), std::vector<int>{before.back()});
  }).join();
  EXPECT_EQ(AllowedCpus(), before);
}

TEST(PinThisThread, RefusesCpusThatAreNotThere) {
  std::thread([] { EXPECT_FALSE(PinThisThread(std::vector<int>{kCpusMax - 1}).ok()); }).join();
}
#endif

TEST(PlacedWhile, NewThreadsBeginThereAndThisOneComesBack) {
  const std::vector<int> before = AllowedCpus();
  if (before.empty()) GTEST_SKIP() << "this system does not say where threads may run";
  const std::vector<int> one{before.back()};
  std::vector<int> begun, freed;
  std::thread([&] {
    const std::vector<int> here = AllowedCpus();
    {
      const PlacedWhile placed(one);
      std::thread([&] {
        begun = AllowedCpus();
        UseProcessCpus();
        freed = AllowedCpus();
      }).join();
    }
    EXPECT_EQ(AllowedCpus(), here);
  }).join();
  EXPECT_EQ(begun, one);
  EXPECT_EQ(freed, ProcessCpus());
  EXPECT_EQ(ProcessCpus(), before);
}

}  // namespace
}  // namespace shoal
