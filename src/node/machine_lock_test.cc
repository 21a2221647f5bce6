// Two who measure on one machine.
#include "node/machine_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/environment.h"
#include "base/test_folder.h"

namespace shoal {
namespace {

constexpr std::chrono::minutes kLong{1};

class MachineLockTest : public testing::Test {
 protected:
  MachineLockTest() { ::setenv("TMPDIR", folder_.path().c_str(), 1); }  // where nobody else measures
  ~MachineLockTest() override {
    if (before_.empty()) ::unsetenv("TMPDIR");
    if (!before_.empty()) ::setenv("TMPDIR", before_.c_str(), 1);
  }

  const TestFolder folder_;
  const std::string before_ = Environment("TMPDIR");
};

TEST_F(MachineLockTest, OneAtATime) {
  const MachineLock first;
  EXPECT_TRUE(first.taken());
  EXPECT_FALSE(MachineLock().taken());
  int waited = 0;
  const MachineLock third(
      std::chrono::milliseconds(0), [] { return false; }, [&] { ++waited; });
  EXPECT_FALSE(third.taken());
  EXPECT_EQ(waited, 1);
}

TEST_F(MachineLockTest, WhoWaitsGetsItThen) {
  auto first = std::make_unique<MachineLock>();
  ASSERT_TRUE(first->taken());
  int asked = 0;
  const MachineLock second(
      kLong,
      [&] {
        if (++asked == 3) first.reset();
        return false;
      },
      [] {});
  EXPECT_TRUE(second.taken());
  EXPECT_GE(asked, 3);
}

TEST_F(MachineLockTest, NobodyWaitsWhoDoesNotWantTo) {
  const MachineLock first;
  int asked = 0;
  const MachineLock second(
      kLong, [&] { return ++asked == 2; }, [] {});
  EXPECT_FALSE(second.taken());
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace shoal
