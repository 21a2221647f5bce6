// What is left of the threads when CPUs are taken away, or wanted by others.
#include "engine/compute_threads.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

using Cpus = std::vector<int>;

TEST(PlanThreads, AsAskedWhileAllIsAllowedOrNothingIsKnown) {
  const ThreadPlan asked{4, {4, 5, 6, 7}};
  EXPECT_EQ(PlanThreads(asked, {0, 1, 2, 3, 4, 5, 6, 7}), asked);
  EXPECT_EQ(PlanThreads(asked, {}), asked);
  const ThreadPlan shared{2, {4, 5, 6, 7}};  // any of them
  EXPECT_EQ(PlanThreads(shared, {4, 5, 6, 7}), shared);
}

TEST(PlanThreads, NoTwoThreadsShareACore) {
  EXPECT_EQ(PlanThreads({4, {4, 5, 6, 7}}, {0, 1, 2, 3, 4, 5, 6}), (ThreadPlan{3, {4, 5, 6}}));
  EXPECT_EQ(PlanThreads({4, {4, 5, 6, 7}}, {7}), (ThreadPlan{1, {7}}));
  EXPECT_EQ(PlanThreads({8, {}}, {0, 1, 2}), (ThreadPlan{3, {}}));
}

TEST(PlanThreads, NoneOfItsOwnIsLeft) { EXPECT_EQ(PlanThreads({4, {4, 5, 6, 7}}, {0, 1}), (ThreadPlan{2, {}})); }

TEST(PlanThreads, MoreThreadsThanCoresOnlyAsAsked) {
  const ThreadPlan many{4, {0, 1}};
  EXPECT_EQ(PlanThreads(many, {0, 1, 2}), many);
  EXPECT_EQ(PlanThreads(many, {0}), (ThreadPlan{1, {0}}));
}

TEST(FewerThreads, OnAnyOfTheirCores) {
  const ThreadPlan plan{4, {4, 5, 6, 7}};
  EXPECT_EQ(FewerThreads(plan, 4), plan);
  EXPECT_EQ(FewerThreads(plan, 3), (ThreadPlan{3, {4, 5, 6, 7}}));
  EXPECT_EQ(FewerThreads({2, {}}, 1), (ThreadPlan{1, {}}));
}

}  // namespace
}  // namespace shoal
