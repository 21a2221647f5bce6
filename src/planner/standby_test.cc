// Where copies of stages go, and which losses they make harmless.
#include "planner/standby.h"

#include <gtest/gtest.h>

#include <string>

namespace shoal {
namespace {

using Copies = std::vector<std::vector<std::int32_t>>;
using Devices = std::vector<std::int32_t>;

// Devices with room for so many bytes, none of which stays free.
PlanInput Input(const std::vector<std::uint64_t>& rooms) {
  PlanInput input;
  for (const std::uint64_t room : rooms) {
    input.devices.push_back({});
    input.devices.back().memory_bytes = room;
  }
  input.policy.memory_headroom = 0;
  return input;
}

// A stage of 100 bytes on each of these devices.
Plan On(const Devices& devices) {
  Plan plan;
  for (const std::int32_t device : devices) plan.stages.push_back({device, {0, 1}});
  plan.memory_bytes.assign(devices.size(), 100);
  return plan;
}

TEST(PlanCopies, FirstWhoHasNoStageThenNeighbours) {
  EXPECT_EQ(PlanCopies(Input({300, 300, 300, 300}), On({0, 1, 2}), 1), (Copies{{3}, {3}, {3}}));
  EXPECT_EQ(PlanCopies(Input({300, 300, 300, 100}), On({0, 1, 2}), 1), (Copies{{3}, {0}, {1}}));
  EXPECT_EQ(PlanCopies(Input({200, 200, 200}), On({0, 1, 2}), 1), (Copies{{1}, {0}, {}}))
      << "the neighbour's room is taken";
  EXPECT_EQ(PlanCopies(Input({200, 200, 200, 200}), On({0, 1, 2, 3}), 1), (Copies{{1}, {0}, {3}, {2}}));
}

TEST(PlanCopies, WhereThereIsRoom) {
  EXPECT_EQ(PlanCopies(Input({199, 199}), On({0, 1}), 1), (Copies{{}, {}}));
  EXPECT_EQ(PlanCopies(Input({199, 200}), On({0, 1}), 1), (Copies{{1}, {}}));
  PlanInput headroom = Input({199, 200});
  headroom.policy.memory_headroom = 0.05;
  EXPECT_EQ(PlanCopies(headroom, On({0, 1}), 1), (Copies{{}, {}}));
  EXPECT_EQ(PlanCopies(Input({1000, 1000}), On({0, 1}), 0), (Copies{{}, {}}));
  EXPECT_EQ(PlanCopies(Input({1000}), On({0}), 1), (Copies{{}})) << "nobody else is there";
}

TEST(PlanCopies, OneOfEachBeforeASecondAndNeverTwoOnOneDevice) {
  EXPECT_EQ(PlanCopies(Input({100, 100, 300}), On({0, 1}), 2), (Copies{{2}, {2}}));
  EXPECT_EQ(PlanCopies(Input({100, 100, 200, 200}), On({0, 1}), 2), (Copies{{2, 3}, {3, 2}}));
  EXPECT_EQ(PlanCopies(Input({100, 100, 200, 100}), On({0, 1}), 2), (Copies{{2}, {3, 2}}));
}

TEST(HarmlessLosses, AllStagesOfADeviceAreKeptElsewhere) {
  EXPECT_EQ(HarmlessLosses(Devices{4, 5, 6}, Copies{{5}, {}, {4, 5}}), (Devices{4, 6}));
  EXPECT_EQ(HarmlessLosses(Devices{4, 5, 4}, Copies{{5}, {4}, {}}), (Devices{5})) << "one of its stages is not kept";
  EXPECT_EQ(HarmlessLosses(Devices{4, 5, 4}, Copies{{5}, {4}, {5}}), (Devices{4, 5})) << "each once";
  EXPECT_EQ(HarmlessLosses(Devices{4}, Copies{{4}}), Devices()) << "a copy that goes with it";
  EXPECT_EQ(HarmlessLosses(std::vector<std::string>{"a"}, {{"b"}}), std::vector<std::string>{"a"});
  EXPECT_EQ(HarmlessLosses(Devices{}, {}), Devices());
}

}  // namespace
}  // namespace shoal
