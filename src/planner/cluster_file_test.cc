// Files of devices, and plans of changed inputs.
#include "planner/cluster_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/units.h"
#include "planner/what_if.h"

namespace shoal {
namespace {

const char* const kTwo = R"({"devices": [
  {"name": "phone", "memory_gib": 3, "decode_gb_s": 40, "prefill_gb_s": 6},
  {"name": "laptop", "memory_gib": 3, "decode_gb_s": 30, "prefill_gb_s": 9, "overhead_ms": 1, "head": false}],
  "link": {"latency_ms": 3, "mb_s": 30},
  "links": [{"from": "phone", "to": "laptop", "latency_ms": 1, "mb_s": 80}]})";

PlanInput Input() {
  const PlanCluster cluster = ParseClusterFile(kTwo).value();
  PlanInput input{cluster.devices, cluster.links, {}, {32, 128, 8, 4096}, {}};
  input.model.layer_bytes.assign(32, 128 * kMiB);
  input.model.kv_bytes.assign(32, 4096);
  input.model.hidden_bytes = 8192;
  for (std::int32_t cut = 1; cut < 32; ++cut) input.model.cuts.push_back(cut);
  return input;
}

TEST(ParseClusterFile, ReadsDevicesAndLinks) {
  const PlanCluster cluster = ParseClusterFile(kTwo).value();
  ASSERT_EQ(cluster.devices.size(), 2U);
  EXPECT_EQ(cluster.devices[0].memory_bytes, 3 * kGiB);
  EXPECT_DOUBLE_EQ(cluster.devices[0].kv_bytes_s, 40e9);
  EXPECT_DOUBLE_EQ(cluster.devices[1].pass_overhead_s, 1e-3);
  EXPECT_FALSE(cluster.devices[1].may_be_head);
  EXPECT_DOUBLE_EQ(cluster.links[1].latency_s, 1e-3);
  EXPECT_DOUBLE_EQ(cluster.links[2].bytes_s, 80e6) << "a link is there in both directions";
}

TEST(ParseClusterFile, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no JSON"},
      {"{}", "'devices'"},
      {R"({"devices": []})", "1 to"},
      {R"({"devices": [{"name": "a"}]})", "memory_gib"},
      {R"({"devices": [{"name": "a", "memory_gib": -1, "decode_gb_s": 1, "prefill_gb_s": 1}]})", "out of range"},
      {R"({"devices": [{"name": "a", "memory_gib": "x", "decode_gb_s": 1, "prefill_gb_s": 1}]})", "no number"},
      {R"({"devices": [{"name": "a", "memory_gib": 1, "decode_gb_s": 1, "prefill_gb_s": 1},
                       {"name": "b", "memory_gib": 1, "decode_gb_s": 1, "prefill_gb_s": 1}]})",
       "how fast the link"},
      {R"({"devices": [{"name": "a", "memory_gib": 1, "decode_gb_s": 1, "prefill_gb_s": 1}],
           "links": [{"from": "a", "to": "z", "latency_ms": 1, "mb_s": 1}]})",
       "'z'"},
  };
  for (const auto& [text, part] : cases) {
    const auto cluster = ParseClusterFile(text);
    ASSERT_FALSE(cluster.ok()) << text;
    EXPECT_THAT(cluster.error().message, testing::HasSubstr(part));
  }
}

TEST(WithoutEach, WhatTheOthersHold) {
  const PlanInput input = Input();
  const Plan plan = MakePlan(input).value().plan;
  ASSERT_EQ(plan.stages.size(), 2U);
  for (const WhatIf& what : WithoutEach(input, plan)) EXPECT_FALSE(what.plan) << what.device << " alone is too small";
}

TEST(WithTwinOfEach, NeverWorse) {
  PlanInput input = Input();
  input.policy.objective = PlanObjective::kThroughput;
  const Plan plan = MakePlan(input).value().plan;
  const auto answers = WithTwinOfEach(input, {0.003, 30e6});
  ASSERT_EQ(answers.size(), 2U);
  for (const WhatIf& what : answers) {
    ASSERT_TRUE(what.plan);
    EXPECT_LE(what.plan->cost, plan.cost * (1 + 1e-9));
  }
}

TEST(WhatReaches, SmallerAndFasterDo) {
  const PlanInput input = Input();
  const Plan plan = MakePlan(input).value().plan;
  EXPECT_TRUE(WhatReaches(input, plan, 0.1, {0.003, 30e6}).already);
  const Reach reach = WhatReaches(input, plan, 20, {0.003, 30e6});
  EXPECT_FALSE(reach.already);
  EXPECT_FALSE(reach.other_plan);
  ASSERT_TRUE(reach.faster_devices);
  EXPECT_GT(*reach.faster_devices, 1.5);
  ASSERT_TRUE(reach.smaller_weights);
  EXPECT_LT(*reach.smaller_weights, 0.7);
  EXPECT_FALSE(reach.links_only);
}

TEST(WhatReaches, FasterDevicesAreSoInAllTheyDo) {
  PlanInput input = Input();
  input.devices.resize(1);
  input.links.assign(1, {});
  PlanDevice& device = input.devices[0];
  device.memory_bytes = std::uint64_t{1} << 40;
  device.output_bytes_s = device.decode_bytes_s / 50;  // a head that outweighs all layers
  device.pass_overhead_s = 0.01;
  const Plan plan = MakePlan(input).value().plan;
  const Reach reach = WhatReaches(input, plan, 3 * plan.tokens_s, {0.003, 30e6});
  ASSERT_TRUE(reach.faster_devices);
  EXPECT_NEAR(*reach.faster_devices, 3, 0.1);
}

// The plan that was asked about is judged, not the best one there could be.
TEST(WhatReaches, AnotherPlanOfTheSameDevicesDoes) {
  PlanInput input = Input();
  for (PlanDevice& device : input.devices) device.memory_bytes = std::uint64_t{1} << 40;
  for (PlanLink& link : input.links) link.latency_s = 0.5;
  input.policy.spread = true;
  const Plan spread = MakePlan(input).value().plan;
  ASSERT_GT(spread.stages.size(), 1U);
  const Reach reach = WhatReaches(input, spread, 2 * spread.tokens_s, {0.003, 30e6});
  EXPECT_FALSE(reach.already);
  ASSERT_TRUE(reach.other_plan);
  EXPECT_EQ(reach.other_plan->stages.size(), 1U);
  EXPECT_GE(reach.other_plan->tokens_s, 2 * spread.tokens_s);
  EXPECT_FALSE(reach.faster_devices);
}

}  // namespace
}  // namespace shoal
