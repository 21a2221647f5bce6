// The number of threads beside other programs, on made-up machines: what a pass takes with each number, and what
// part of one thread's time is lost meanwhile.
#include "engine/contention_guard.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <utility>

#include "runtime/rng.h"

namespace shoal {
namespace {

struct Machine {
  std::function<double(int threads)> pass_s;
  double lost_share = 0;
};

struct Computed {
  std::map<int, double> seconds;  // by number of threads
  double total = 0;
  std::set<int> tried;
};

// Passes of `rows` rows for `seconds`.
Computed Compute(ContentionGuard& guard, const Machine& machine, double seconds, std::size_t rows = 1) {
  Computed computed;
  while (computed.total < seconds) {
    const int threads = guard.threads();
    const double pass = machine.pass_s(threads);
    guard.Passed({rows, pass, 0, 0, pass * machine.lost_share});
    computed.seconds[threads] += pass;
    computed.total += pass;
    computed.tried.insert(threads);
  }
  return computed;
}

const Machine kFree{[](int threads) { return 0.024 / threads; }, 0.02};
// Two busy programs on two cores: half of one core is what one thread gets.
const Machine kBothCoresBusy{[](int threads) { return threads == 1 ? 0.048 : 0.130; }, 0.5};
// One busy program, one of eight cores: whoever has it is waited for.
const Machine kOneOfEightBusy{[](int threads) { return threads == 8 ? 0.060 : 0.080 / threads; }, 0.5};

TEST(ContentionGuard, NothingIsTriedWhileCoresAreFree) {
  ContentionGuard guard(4);
  EXPECT_EQ(Compute(guard, kFree, 600).tried, std::set<int>{4});
}

TEST(ContentionGuard, TheCallersOwnTimeTellsWhereOthersOfItsProcessCompute) {
  ContentionGuard guard(2);
  for (int pass = 0; pass < 30; ++pass) {
    const double seconds = kBothCoresBusy.pass_s(guard.threads());
    guard.Passed({1, seconds, 0, 0.5 * seconds, -3 * seconds});
  }
  EXPECT_EQ(guard.threads(), 1);
}

TEST(ContentionGuard, OneThreadHasNothingToTry) {
  ContentionGuard guard(1);
  EXPECT_EQ(Compute(guard, kBothCoresBusy, 60).tried, std::set<int>{1});
}

TEST(ContentionGuard, FewerComputeBesideBusyProgramsWithinASecond) {
  ContentionGuard guard(2);
  (void)Compute(guard, kBothCoresBusy, 1.0);
  EXPECT_TRUE(guard.settled());
  EXPECT_EQ(guard.threads(), 1);
}

TEST(ContentionGuard, OnlyAsManyFewerAsHelp) {
  ContentionGuard guard(8);
  (void)Compute(guard, kOneOfEightBusy, 2.0);
  EXPECT_EQ(guard.threads(), 7);
}

TEST(ContentionGuard, AllComputeAgainSoonAfterTheCoresAreFree) {
  ContentionGuard guard(2);
  (void)Compute(guard, kBothCoresBusy, 30);
  ASSERT_EQ(guard.threads(), 1);
  (void)Compute(guard, kFree, ContentionGuard::kRestMaxS + 0.5);
  EXPECT_EQ(guard.threads(), 2);
  EXPECT_LT(Compute(guard, kFree, 600).seconds[1], 1e-9);
}

TEST(ContentionGuard, SurveysCostLittle) {
  ContentionGuard busy(2);
  (void)Compute(busy, kBothCoresBusy, 2);
  Computed computed = Compute(busy, kBothCoresBusy, 300);
  EXPECT_LT(computed.seconds[2], 0.05 * computed.total);

  // Cores are taken away, but fewer threads are not faster: then it is asked more and more rarely.
  ContentionGuard vain(4);
  const Machine machine{[](int threads) { return threads == 4 ? 0.010 : 0.015 / threads + 0.009; }, 0.3};
  computed = Compute(vain, machine, 600);
  EXPECT_GT(computed.seconds[4], 0.98 * computed.total);
  EXPECT_EQ(computed.tried, (std::set<int>{3, 4}));
}

TEST(ContentionGuard, ASurveyOfLongPassesStopsWhereFewerAreClearlySlower) {
  ContentionGuard guard(16);
  const Machine machine{[](int threads) { return threads == 16 ? 20.0 : 32.0 / threads; }, 0.5};  // seconds a token
  Computed computed = Compute(guard, machine, 400);
  EXPECT_EQ(guard.threads(), 15);
  EXPECT_EQ(computed.tried, (std::set<int>{8, 15, 16}));
  computed = Compute(guard, machine, 4000);
  EXPECT_GT(computed.seconds[15], 0.9 * computed.total);
}

// The processor time of threads that run on other cores is known up to a tick each.
TEST(ContentionGuard, TimeThatIsCountedInTicksIsNotLost) {
  constexpr double kTick = 0.004;
  ContentionGuard guard(8);
  Rng rng(1);
  double missing = 0;
  for (int pass = 0; pass < 30000; ++pass) {
    const double before = std::exchange(missing, 7 * kTick * rng.Uniform());
    guard.Passed({1, 0.02, 0, 0, missing - before});
    ASSERT_EQ(guard.threads(), 8);
  }
}

TEST(ContentionGuard, AllComputeAgainSoonAfterALongRest) {
  ContentionGuard guard(2);
  (void)Compute(guard, kBothCoresBusy, 30);
  ASSERT_EQ(guard.threads(), 1);
  guard.Passed({1, 0.02, 3600, 0, 0});
  (void)Compute(guard, kFree, 0.5);
  EXPECT_EQ(guard.threads(), 2);
}

TEST(ContentionGuard, GroupsOfAnswersThatDifferByARowAreCompared) {
  ContentionGuard guard(2);
  for (int turn = 0; turn < 20; ++turn) (void)Compute(guard, kBothCoresBusy, 1e-9, turn % 2 == 0 ? 2 : 3);
  EXPECT_EQ(guard.threads(), 1);
}

TEST(ContentionGuard, ASurveyThatIsGivenUpLeavesNoFewerThreadsOnFreeCores) {
  ContentionGuard guard(2);
  (void)Compute(guard, kBothCoresBusy, 30);
  ASSERT_EQ(guard.threads(), 1);
  for (int turn = 0; turn < 3000; ++turn) (void)Compute(guard, kFree, 1e-9, turn % 2 == 0 ? 1 : 64);
  EXPECT_EQ(guard.threads(), 2);
}

TEST(ContentionGuard, OnlyPassesOfAsManyRowsAreCompared) {
  ContentionGuard guard(2);
  // Micro-batches of a prompt (64 rows, slow) in turns with tokens of answers: a survey that compared them with each
  // other would find what is not there.
  const Machine tokens{[](int threads) { return 0.02 / threads; }, 0.3};
  const Machine prompts{[](int threads) { return 0.4 / threads; }, 0.3};
  for (int turn = 0; turn < 400; ++turn) {
    (void)Compute(guard, turn % 2 == 0 ? tokens : prompts, 1e-9, turn % 2 == 0 ? 1 : 64);
    if (guard.settled()) { ASSERT_EQ(guard.threads(), 2); }
  }
}

TEST(ContentionGuard, ASurveyGoesOnWithTheRowsThatCome) {
  ContentionGuard guard(2);
  while (guard.settled()) (void)Compute(guard, kBothCoresBusy, 1e-9, 64);  // the prompt ends here
  (void)Compute(guard, kBothCoresBusy, 0.6, 1);
  EXPECT_TRUE(guard.settled());
  EXPECT_EQ(guard.threads(), 1);
}

TEST(ContentionGuard, ASurveyOfRowsThatDoNotComeAgainIsGivenUp) {
  ContentionGuard guard(2);
  std::size_t rows = 1;
  while (guard.settled()) (void)Compute(guard, kBothCoresBusy, 1e-9, rows);
  const auto quick = [](int) { return 0.001; };
  for (int change = 0; change <= ContentionGuard::kRowChangesMax; ++change) {
    ASSERT_FALSE(guard.settled());
    (void)Compute(guard, {quick, 0.5}, 1e-9, rows *= 2);
  }
  EXPECT_TRUE(guard.settled());
  EXPECT_EQ(guard.threads(), 2);
}

}  // namespace
}  // namespace shoal
