// When kernels are measured, when not, and what a finished measurement changes. The measurement is the test's.
#include "node/kernel_keeper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/cpu_kernels.h"

namespace shoal {
namespace {

constexpr TimeUs kStart = 1'000'000;
constexpr std::chrono::seconds kHangs{60};

class KernelKeeperTest : public testing::Test {
 protected:
  KernelKeeperTest() {
    options_.profile = [this] { return profile_; };
    options_.measure = [this](const std::string& type, const KernelMeasuring& how) -> Result<KernelChoice> {
      ++measured_;
      EXPECT_TRUE(how.in_background);
      const auto end = std::chrono::steady_clock::now() + kHangs;
      while (blocks_ && !how.cancelled() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      if (how.cancelled()) return Error{ErrorCode::kCancelled, "given up"};
      if (fails_) return Error{*fails_, "no"};
      const std::string variant = LoadedCpuKernels()->variant;
      return ChooseKernels(type, {{variant, 4, 10e9, 4e9, ""}, {variant, 3, 20e9, 8e9, ""}});
    };
  }

  KernelKeeper& keeper() {
    if (!keeper_) keeper_ = std::make_unique<KernelKeeper>(tasks_, options_);
    return *keeper_;
  }
  // Ticks at one moment until what was begun has ended; whether a tick said that threads have changed.
  bool Settle(TimeUs now, const std::vector<std::string>& types = {"Q4_0"}) {
    bool changed = keeper().Tick(now, false, types);
    const auto end = std::chrono::steady_clock::now() + kHangs;
    do {
      changed = keeper().Tick(now, false, types) || changed;
    } while (keeper().busy() && std::chrono::steady_clock::now() < end);
    return keeper().Tick(now, false, types) || changed;
  }

  // Used by tasks: they outlive these.
  std::atomic<int> measured_{0};
  std::atomic<bool> blocks_{false};
  std::optional<ErrorCode> fails_;
  DeviceProfile profile_;
  KernelKeeperOptions options_;
  BlockingTasks tasks_{4};
  std::unique_ptr<KernelKeeper> keeper_;
};

TEST_F(KernelKeeperTest, MeasuresOnceWhenNothingRan) {
  EXPECT_FALSE(Settle(kStart)) << "not soon after the start";
  EXPECT_EQ(measured_, 0);
  EXPECT_EQ(keeper().ThreadsFor("Q4_0"), 0);
  EXPECT_TRUE(Settle(kStart + KernelKeeper::kIdleUs));
  EXPECT_EQ(measured_, 1);
  EXPECT_EQ(keeper().ThreadsFor("Q4_0"), 3);
  ASSERT_EQ(keeper().status().choices.size(), 1U);
  EXPECT_EQ(keeper().status().choices[0].threads, 3);
  EXPECT_FALSE(Settle(kStart + 10 * KernelKeeper::kIdleUs));
  EXPECT_EQ(measured_, 1) << "it is known";
  Settle(kStart + 20 * KernelKeeper::kIdleUs, {"Q4_0", "Q8_0"});
  EXPECT_EQ(measured_, 2) << "another type is not";
}

TEST_F(KernelKeeperTest, WithoutModelsItMeasuresWhatIsAdvised) {
  Settle(kStart, {});
  Settle(kStart + KernelKeeper::kIdleUs, {});
  EXPECT_EQ(measured_, 1);
  EXPECT_EQ(keeper().status().choices.size(), 1U);
  Settle(kStart + 9 * KernelKeeper::kIdleUs, {});
  EXPECT_EQ(measured_, 1);
}

TEST_F(KernelKeeperTest, NeverWhileSomethingRuns) {
  for (int i = 0; i < 20; ++i) keeper().Tick(kStart + i * KernelKeeper::kIdleUs, true, {"Q4_0"});
  EXPECT_EQ(measured_, 0);
}

TEST_F(KernelKeeperTest, GivesWayAndComesBackLater) {
  blocks_ = true;
  keeper().Tick(kStart, false, {"Q4_0"});
  TimeUs now = kStart + KernelKeeper::kIdleUs;
  keeper().Tick(now, false, {"Q4_0"});
  const auto end = std::chrono::steady_clock::now() + kHangs;
  while (measured_ == 0 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  keeper().Tick(now, true, {"Q4_0"});  // a request
  Settle(now);
  EXPECT_TRUE(keeper().status().choices.empty());
  blocks_ = false;
  Settle(now + KernelKeeper::kIdleUs);
  EXPECT_EQ(measured_, 1) << "it waits longer after it was disturbed";
  Settle(now + 2 * KernelKeeper::kIdleUs);
  EXPECT_EQ(measured_, 2);
  EXPECT_EQ(keeper().ThreadsFor("Q4_0"), 3);
}

TEST_F(KernelKeeperTest, WorkThatComesDoesNotMakeItGiveUp) {
  blocks_ = true;
  TimeUs now = kStart;
  keeper().Tick(now, false, {"Q4_0"});
  for (int i = 1; i <= 2 * KernelKeeper::kAttemptsMax; ++i) {
    keeper().Tick(now += KernelKeeper::kIdleMaxUs, false, {"Q4_0"});
    const auto end = std::chrono::steady_clock::now() + kHangs;
    while (measured_ < i && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    ASSERT_EQ(measured_, i);
    keeper().Tick(now, true, {"Q4_0"});  // a request
    Settle(now);
  }
  blocks_ = false;
  Settle(now + KernelKeeper::kIdleMaxUs);
  EXPECT_EQ(keeper().ThreadsFor("Q4_0"), 3);
}

TEST_F(KernelKeeperTest, GivesUpInTheEnd) {
  fails_ = ErrorCode::kUnavailable;  // others compute each time
  TimeUs now = kStart;
  for (int i = 0; i < 3 * KernelKeeper::kAttemptsMax; ++i) Settle(now += KernelKeeper::kIdleMaxUs);
  EXPECT_EQ(measured_, KernelKeeper::kAttemptsMax);
}

TEST_F(KernelKeeperTest, WhatCannotBeMeasuredIsTriedOnce) {
  fails_ = ErrorCode::kInternal;
  TimeUs now = kStart;
  for (int i = 0; i < 5; ++i) Settle(now += KernelKeeper::kIdleMaxUs);
  EXPECT_EQ(measured_, 1);
}

TEST_F(KernelKeeperTest, NotOnALowBattery) {
  profile_.power.batteries.push_back({"battery", 10, false, {}});
  Settle(kStart);
  Settle(kStart + KernelKeeper::kIdleUs);
  EXPECT_EQ(measured_, 0);
  EXPECT_NE(keeper().status().state, "");
  profile_.power.batteries[0].charging = true;
  Settle(kStart + KernelKeeper::kIdleUs + KernelKeeper::kLowBatteryUs);
  EXPECT_EQ(measured_, 1);
}

TEST_F(KernelKeeperTest, NotWhereItIsOffOrThreadsAreGiven) {
  options_.may_measure = false;
  Settle(kStart);
  Settle(kStart + KernelKeeper::kIdleMaxUs);
  EXPECT_EQ(measured_, 0);
  keeper_.reset();
  options_.may_measure = true;
  options_.threads = 2;
  Settle(kStart);
  Settle(kStart + KernelKeeper::kIdleMaxUs);
  EXPECT_EQ(measured_, 0);
  EXPECT_EQ(keeper().ThreadsFor("Q4_0"), 2);
}

}  // namespace
}  // namespace shoal
