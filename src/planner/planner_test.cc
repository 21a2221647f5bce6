// Plans against trying everything, against bounds, and against what a person would expect.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/units.h"
#include "planner/cost_model.h"
#include "planner/plan.h"
#include "planner/test_instances.h"

namespace shoal {
namespace {

PlanDevice Phone(const std::string& name, double gib, double gb_s) {
  PlanDevice device;
  device.name = name;
  device.memory_bytes = static_cast<std::uint64_t>(gib * static_cast<double>(kGiB));
  device.decode_bytes_s = gb_s * 1e9;
  device.prefill_bytes_s = gb_s * 0.2e9;
  device.kv_bytes_s = gb_s * 1e9;
  device.pass_overhead_s = 1e-4;
  return device;
}

// 32 layers of 128 MiB on links of 2 ms and 20 MB/s.
PlanInput Cluster(std::vector<PlanDevice> devices) {
  PlanInput input;
  input.model.layer_bytes.assign(32, 128 * kMiB);
  input.model.kv_bytes.assign(32, 4096);
  input.model.output_bytes = 200 * kMiB;
  input.model.hidden_bytes = 8192;
  for (std::int32_t cut = 1; cut < 32; ++cut) input.model.cuts.push_back(cut);
  input.devices = std::move(devices);
  input.links.assign(input.devices.size() * input.devices.size(), {0.002, 20e6});
  return input;
}

TEST(MakePlan, OneDeviceThatHoldsAllIsBestForOneStream) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  input.workload.prompt_tokens = 32;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_TRUE(result->exact);
  EXPECT_EQ(result->plan.stages.size(), 1U);
  EXPECT_THAT(result->reason, testing::HasSubstr("alone is fastest"));
}

TEST(MakePlan, ALongPromptUsesBothEvenForOneStream) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  input.workload.prompt_tokens = 2048;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->plan.stages.size(), 2U) << "passes of the prompt follow each other";
  EXPECT_LT(result->plan.first_token_s, result->best_single->first_token_s * 0.6);
  EXPECT_LT(result->plan.tokens_s, result->best_single->tokens_s);
  EXPECT_THAT(result->warnings, testing::Contains(testing::HasSubstr("One stream by itself would be")));
  EXPECT_THAT(result->reason, testing::HasSubstr("times as fast as"));
}

TEST(MakePlan, ManyStreamsUseBoth) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  input.policy.objective = PlanObjective::kThroughput;
  input.workload.streams = 16;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->plan.stages.size(), 2U);
  EXPECT_NEAR(result->plan.stages[0].layers.last, 17, 1) << "the output head weighs as much as 1.5 layers";
  EXPECT_GT(result->plan.tokens_s_many, result->best_single->tokens_s_many);
  EXPECT_THAT(result->warnings, testing::Contains(testing::HasSubstr("One stream by itself would be")));
}

TEST(MakePlan, MoreDevicesHaveToPromiseMoreThanAForecastIsOffBy) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  input.policy.objective = PlanObjective::kThroughput;
  const auto both = MakePlan(input);
  ASSERT_TRUE(both.ok() && both->best_single);
  ASSERT_EQ(both->plan.stages.size(), 2U);
  const double gain = both->best_single->cost / both->plan.cost;
  ASSERT_GT(gain, 1.02);
  input.policy.alone_within = gain - 1 - 0.01;
  EXPECT_EQ(MakePlan(input)->plan.stages, both->plan.stages);
  input.policy.alone_within = gain - 1 + 0.01;
  const auto alone = MakePlan(input);
  EXPECT_EQ(alone->plan.stages, both->best_single->stages);
  ASSERT_FALSE(alone->runners_up.empty());
  EXPECT_EQ(alone->runners_up.front().stages, both->plan.stages);
  EXPECT_THAT(alone->reason, testing::HasSubstr("a alone is about as fast"));
  input.policy.stages_min = 2;
  EXPECT_EQ(MakePlan(input)->plan.stages, both->plan.stages);
}

TEST(GroupingsOf, AreThoseThatAHeadTries) {
  const auto counts = [](std::int32_t streams, std::size_t stages) {
    PlanWorkload workload;
    workload.streams = streams;
    std::vector<double> found;
    for (const StreamGroups& groups : GroupingsOf(workload, stages)) {
      EXPECT_DOUBLE_EQ(groups.count * groups.rows, streams);
      found.push_back(groups.count);
    }
    return found;
  };
  EXPECT_THAT(counts(1, 3), testing::ElementsAre(1));
  EXPECT_THAT(counts(4, 1), testing::ElementsAre(1, 2, 4));
  EXPECT_THAT(counts(4, 2), testing::ElementsAre(2, 4)) << "as many as stages at least";
  EXPECT_THAT(counts(8, 3), testing::ElementsAre(3, 4, 8));
  EXPECT_THAT(counts(5, 4), testing::ElementsAre(3, 5)) << "groups of two rows are three";
  EXPECT_THAT(counts(64, 20), testing::ElementsAre(16)) << "never more than kStreamGroupsMax";
}

// A model most of whose work is its output head, on a device and one of 40 %: a row more costs nearly as much as one.
PlanInput HeavyHead() {
  PlanInput input = Cluster({Phone("slow", 16, 4), Phone("fast", 16, 10)});
  input.model.output_bytes = 64 * input.model.layer_bytes[0];
  input.policy.objective = PlanObjective::kThroughput;
  input.workload.streams = 4;
  for (PlanDevice& device : input.devices) {
    device.output_bytes_s = device.decode_bytes_s;
    device.output_pair_bytes_s = device.decode_bytes_s / 2;
    device.output_quad_bytes_s = device.decode_bytes_s / 4;
    device.output_group_bytes_s = device.decode_bytes_s / 7;
  }
  return input;
}

TEST(MakePlan, AsManyGroupsAsStagesKeepAHeavyHeadBusy) {
  const PlanInput input = HeavyHead();
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_EQ(result->plan.stages.size(), 2U);
  EXPECT_EQ(result->plan.stages[1].device, 1) << "the fast one has the head";
  EXPECT_GT(result->plan.stages[0].layers.count(), 24) << "and few layers";
  EXPECT_GT(result->plan.tokens_s_many, 1.1 * result->best_single->tokens_s_many);
}

TEST(JudgePlan, FewRowsCostWhatWasMeasuredAndGroupsFollowIt) {
  PlanInput input = HeavyHead();
  const std::vector<PlanStage> alone = {{1, {0, 32}}};
  const double linear = JudgePlan(input, alone)->tokens_s_many;
  PlanInput bent = input;  // four rows as slow as eight
  for (PlanDevice& device : bent.devices) device.output_quad_bytes_s = device.output_group_bytes_s;
  const double paired = JudgePlan(bent, alone)->tokens_s_many;
  EXPECT_LT(paired, linear * 0.99);
  EXPECT_GT(paired, linear * 0.75) << "two groups of two rows, not one of four";
  bent.workload.streams = input.workload.streams = 8;
  EXPECT_NEAR(JudgePlan(bent, alone)->tokens_s_many, JudgePlan(input, alone)->tokens_s_many,
              1e-9 * JudgePlan(input, alone)->tokens_s_many)
      << "eight cost what they did";
}

TEST(MakePlan, MemoryMakesThemShare) {
  PlanInput input = Cluster({Phone("small", 2.5, 30), Phone("fast", 3, 60), Phone("slow", 3, 10)});
  input.workload.prompt_tokens = 32;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_FALSE(result->best_single);
  ASSERT_EQ(result->plan.stages.size(), 2U) << "the slow one is not needed";
  for (std::size_t i = 0; i < 2; ++i) EXPECT_LE(result->plan.memory_bytes[i], 3 * kGiB * 95 / 100);
  EXPECT_THAT(result->reason, testing::HasSubstr("No device alone holds the model"));
}

TEST(MakePlan, SaysWhatIsMissing) {
  const auto result = MakePlan(Cluster({Phone("a", 1, 20), Phone("b", 1, 20)}));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(result.error().message, testing::HasSubstr("missing"));
}

TEST(MakePlan, OnlyAllowedCutsAndHeads) {
  PlanInput input = Cluster({Phone("a", 4, 60), Phone("b", 4, 20)});
  input.model.cuts = {10, 20};
  input.devices[0].may_be_head = false;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->plan.stages.size(), 2U);
  EXPECT_EQ(result->plan.stages[0].device, 1);
  EXPECT_EQ(result->plan.stages[0].layers.last, 10);
}

TEST(MakePlan, RefusesNonsense) {
  PlanInput input = Cluster({Phone("a", 8, 20)});
  input.devices[0].decode_bytes_s = 0;
  EXPECT_EQ(MakePlan(input).error().code, ErrorCode::kInvalidArgument);
  input = Cluster({Phone("a", 8, 20)});
  input.model.cuts = {5, 5};
  EXPECT_EQ(MakePlan(input).error().code, ErrorCode::kInvalidArgument);
  input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  input.links[1].bytes_s = std::nan("");
  EXPECT_EQ(MakePlan(input).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(MakePlan(PlanInput{}).error().code, ErrorCode::kNotFound);
}

TEST(JudgePlan, RefusesWhatIsNoPlan) {
  const PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  EXPECT_TRUE(JudgePlan(input, {{0, {0, 16}}, {1, {16, 32}}}).ok());
  EXPECT_FALSE(JudgePlan(input, {{0, {0, 16}}, {0, {16, 32}}}).ok());
  EXPECT_FALSE(JudgePlan(input, {{0, {0, 16}}}).ok());
  EXPECT_FALSE(JudgePlan(input, {{0, {0, 16}}, {1, {17, 32}}}).ok());
  EXPECT_FALSE(JudgePlan(input, {{7, {0, 32}}}).ok());
}

TEST(JudgePlan, SlowerLinksCostMore) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  const std::vector<PlanStage> stages = {{0, {0, 16}}, {1, {16, 32}}};
  const Plan before = JudgePlan(input, stages).value();
  for (PlanLink& link : input.links) link.latency_s += 0.01;
  const Plan after = JudgePlan(input, stages).value();
  EXPECT_NEAR(1 / after.tokens_s - 1 / before.tokens_s, 0.02, 1e-9) << "there and back";
  EXPECT_GT(after.first_token_s, before.first_token_s + 0.019);
}

TEST(MakePlan, IsTheBestThereIsOnSmallClusters) {
  InstanceRng rng(1);
  int solved = 0;
  for (int i = 0; i < 150; ++i) {
    InstanceOptions options;
    options.devices_max = 5;
    options.layers_max = 7;
    PlanInput input = RandomInstance(rng, options);
    input.policy.stages_min = i % 4;
    input.model.sent_bytes = static_cast<std::uint64_t>(i % 3) * 100 * kMiB;
    const BruteForce brute(input);
    const auto result = MakePlan(input);
    ASSERT_EQ(result.ok(), brute.best().has_value()) << "instance " << i;
    if (!result.ok()) continue;
    ++solved;
    EXPECT_TRUE(result->exact);
    EXPECT_NEAR(result->plan.cost, *brute.best(), *brute.best() * 1e-9) << "instance " << i;
    EXPECT_LE(LowerBound(input).value(), result->plan.cost * (1 + 1e-9)) << "instance " << i;
    EXPECT_NEAR(JudgePlan(input, result->plan.stages).value().cost, result->plan.cost, result->plan.cost * 1e-12);
  }
  EXPECT_GT(solved, 50);
}

TEST(PlanInOrder, IsTheBestOfAllCuts) {
  InstanceRng rng(3);
  int solved = 0;
  for (int i = 0; i < 200; ++i) {
    InstanceOptions options;
    options.devices_max = 4;
    options.layers_max = 9;
    const PlanInput input = RandomInstance(rng, options);
    std::vector<std::int32_t> order;
    for (std::size_t d = input.devices.size(); d-- > 0;) order.push_back(static_cast<std::int32_t>(d));
    // Every way to cut, one by one.
    std::optional<double> best;
    const std::size_t cuts = input.model.cuts.size();
    for (std::size_t set = 0; set < std::size_t{1} << cuts; ++set) {
      std::vector<PlanStage> stages;
      std::int32_t first = 0;
      for (std::size_t cut = 0; cut <= cuts; ++cut) {
        const bool is_last = cut == cuts;
        if (!is_last && (set >> cut & 1) == 0) continue;
        const std::int32_t last =
            is_last ? static_cast<std::int32_t>(input.model.layer_bytes.size()) : input.model.cuts[cut];
        if (stages.size() < order.size()) stages.push_back({order[stages.size()], {first, last}});
        first = last;
      }
      const auto judged = JudgePlan(input, stages);
      if (stages.size() != order.size() || !judged.ok()) continue;
      if (!best || judged->cost < *best) best = judged->cost;
    }
    const auto plan = PlanInOrder(input, order);
    ASSERT_EQ(plan.ok(), best.has_value()) << "instance " << i;
    if (!best) continue;
    ++solved;
    EXPECT_LE(plan->cost, *best * 1.001 * (1 + 1e-9)) << "instance " << i;
    EXPECT_GE(plan->cost, *best * (1 - 1e-9)) << "instance " << i;
  }
  EXPECT_GT(solved, 30);
}

TEST(PlanInOrder, StagesAreEvenWhereThatCostsNothing) {
  PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20), Phone("c", 8, 20)});
  input.policy.objective = PlanObjective::kThroughput;
  input.model.output_bytes = 0;
  for (PlanLink& link : input.links) link.latency_s = 10;  // what links take hides what stages do
  const auto plan = PlanInOrder(input, {0, 1, 2});
  ASSERT_TRUE(plan.ok());
  for (const PlanStage& stage : plan->stages) EXPECT_NEAR(stage.layers.count(), 11, 1);
}

TEST(PlanInOrder, RefusesNonsense) {
  const PlanInput input = Cluster({Phone("a", 8, 20), Phone("b", 8, 20)});
  for (const std::vector<std::int32_t>& order : std::vector<std::vector<std::int32_t>>{{}, {0, 0}, {2}, {-1}}) {
    EXPECT_EQ(PlanInOrder(input, order).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(MakePlan, NeverBelowItsBoundOnLargeClusters) {
  InstanceRng rng(2);
  for (int i = 0; i < 6; ++i) {
    InstanceOptions options{64, 64, 126, 126, 30e9, 60e9, true};
    PlanInput input = RandomInstance(rng, options);
    const auto result = MakePlan(input);
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(result->exact);
    EXPECT_GE(result->plan.cost, LowerBound(input).value() * (1 - 1e-9));
    EXPECT_TRUE(JudgePlan(input, result->plan.stages).ok());
  }
}

PlanDevice Powered(PlanDevice device, double idle_w, double active_w) {
  device.idle_w = idle_w;
  device.active_w = active_w;
  return device;
}

TEST(MakePlan, TheLeastEnergyIsFoundAndSaysWhatSpeedItCosts) {
  PlanInput input = Cluster({Powered(Phone("phone", 8, 20), 0.5, 4), Powered(Phone("desktop", 16, 30), 30, 60)});
  input.policy.objective = PlanObjective::kEnergy;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_TRUE(result->exact);
  ASSERT_EQ(result->plan.stages.size(), 1U);
  EXPECT_EQ(result->plan.stages[0].device, 0);
  EXPECT_THAT(result->reason, testing::StartsWith("phone alone takes "));
  EXPECT_THAT(result->reason, testing::HasSubstr("times the energy."));
  ASSERT_TRUE(result->fastest);
  EXPECT_LT(result->plan.joules_token, result->fastest->joules_token);
  EXPECT_GE(result->fastest->request_s, result->plan.request_s * input.policy.speed_share_min);
  // 0.5 W as long as it lasts and 4 W while it computes, which is all of it.
  EXPECT_NEAR(result->plan.joules_token * input.workload.answer_tokens, 4.5 * result->plan.request_s, 1e-6);
}

TEST(MakePlan, EnergyIsNotSavedBelowTheShareOfTheBestSpeed) {
  PlanInput input = Cluster({Powered(Phone("phone", 8, 5), 0.5, 4), Powered(Phone("desktop", 16, 30), 30, 60)});
  input.policy.objective = PlanObjective::kEnergy;
  const auto result = MakePlan(input);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_LE(result->plan.request_s, result->fastest->request_s / input.policy.speed_share_min * (1 + 1e-9));
  EXPECT_EQ(result->plan.stages.back().device, 1) << "the phone by itself would take six times as long";
  input.policy.speed_share_min = 0.05;
  const auto slow = MakePlan(input);
  ASSERT_TRUE(slow.ok());
  EXPECT_EQ(slow->plan.stages.front().device, 0);
  EXPECT_LT(slow->plan.joules_token, result->plan.joules_token);
}

TEST(MakePlan, ABatterysJoulesMayCountMore) {
  PlanInput input = Cluster({Powered(Phone("phone", 8, 20), 0.5, 4), Powered(Phone("board", 8, 20), 3, 4)});
  input.devices[0].on_battery = true;
  input.policy.objective = PlanObjective::kEnergy;
  const auto even = MakePlan(input);
  ASSERT_TRUE(even.ok());
  EXPECT_EQ(even->plan.stages.front().device, 0);
  input.policy.battery_weight = 4;
  const auto spared = MakePlan(input);
  ASSERT_TRUE(spared.ok());
  ASSERT_EQ(spared->plan.stages.size(), 1U);
  EXPECT_EQ(spared->plan.stages.front().device, 1);
  input.devices[0].idle_w = input.devices[0].active_w = 0;
  EXPECT_THAT(MakePlan(input).error().message, testing::HasSubstr("what power phone takes"));
}

TEST(MakePlan, NoPlanTakesLessEnergyAmongThoseThatAreFastEnough) {
  InstanceRng rng(33);
  int solved = 0;
  for (int i = 0; i < 150; ++i) {
    const PlanInput input = RandomEnergyInstance(rng, InstanceOptions{1, 5, 1, 8});
    const BruteForce brute(input);
    const auto result = MakePlan(input);
    ASSERT_EQ(result.ok(), brute.best().has_value()) << i;
    if (!result.ok()) continue;
    ++solved;
    EXPECT_TRUE(result->exact) << i;
    EXPECT_LE(result->plan.cost, *brute.best() * (1 + 1e-9)) << i;
    EXPECT_GE(result->plan.cost, *brute.best() * (1 - 1e-9)) << i;
  }
  EXPECT_GT(solved, 50);
}

TEST(MakePlan, ManyDevicesAreSearchedForTheLeastEnergyWithinTheirSpeed) {
  InstanceRng rng(34);
  for (int i = 0; i < 4; ++i) {
    PlanInput input = RandomEnergyInstance(rng, InstanceOptions{40, 40, 60, 60, 10e9, 30e9, true});
    const auto result = MakePlan(input);
    if (!result.ok()) continue;
    EXPECT_LE(result->plan.cost, result->fastest->cost * (1 + 1e-9)) << "the fastest is one to begin from";
    EXPECT_LE(result->plan.request_s * input.policy.speed_share_min, result->fastest->request_s * (1 + 1e-9));
    const auto judged = JudgePlan(input, result->plan.stages);
    ASSERT_TRUE(judged.ok()) << judged.error().message;
    EXPECT_NEAR(judged->cost, result->plan.cost, 1e-9 * judged->cost);
  }
}

}  // namespace
}  // namespace shoal
