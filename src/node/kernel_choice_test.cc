// Which backends are tried, which one wins, and what is kept of it.
#include "node/kernel_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "device/test_cores.h"

namespace shoal {
namespace {

using testing::HasSubstr;

TEST(KernelChoice, TriesTheBestBackendsAndTheirTwins) {
  const std::vector<CpuBackendFile> backends{{"armv8.6_2", "", 40},         {"armv8.6_2-kleidiai", "", 40},
                                             {"armv8.6_0", "", 20},         {"armv8.2_2", "", 8},
                                             {"armv8.2_2-kleidiai", "", 8}, {"armv8.2_1", "", 4},
                                             {"armv8.2_1-kleidiai", "", 4}, {"base", "", 0}};
  std::vector<std::string> names;
  for (const KernelTrial& trial : KernelCandidates(backends, 4)) {
    names.push_back(trial.variant);
    EXPECT_EQ(trial.threads, 4);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"armv8.6_2", "armv8.6_0", "armv8.2_2", "armv8.6_2-kleidiai",
                                             "armv8.2_2-kleidiai"}));
  const std::vector<KernelTrial> built_in = KernelCandidates({}, 4);
  ASSERT_EQ(built_in.size(), 1U);
  EXPECT_EQ(built_in[0].variant, kBuiltInKernels);
  EXPECT_EQ(built_in[0].threads, 4);
}

TEST(KernelChoice, LeavesGgmlsOwnOnlyForAGain) {
  const KernelTrial own{"armv8.6_2", 4, 10e9, 4e9, "CPU_REPACK"};
  KernelTrial other{"armv8.6_2-kleidiai", 4, 10.2e9, 4e9, "CPU_KLEIDIAI"};
  KernelChoice choice = ChooseKernels("Q4_0", {own, other});
  EXPECT_EQ(choice.best, 0U);
  EXPECT_THAT(choice.why, HasSubstr("armv8.6_2 with 4 threads, what ggml takes by itself, is as fast"));
  other.one_row_bytes_s = 20e9;
  choice = ChooseKernels("Q4_0", {own, other});
  EXPECT_EQ(choice.best, 1U);
  EXPECT_THAT(choice.why, HasSubstr("armv8.6_2-kleidiai with 4 threads is 1.7"));
  // One that is better at prompts alone is weighed by a whole request.
  const KernelTrial prompts{"x", 4, 5e9, 40e9, "CPU"};
  EXPECT_EQ(ChooseKernels("Q4_0", {own, prompts}).best, 0U);
  // One that did not run never wins; where ggml's own did not, another one does.
  const KernelTrial dead{"armv9.2_2", 4, 0, 0, ""};
  EXPECT_EQ(ChooseKernels("Q4_0", {own, dead}).best, 0U);
  EXPECT_EQ(ChooseKernels("Q4_0", {dead, own}).best, 1U);
}

TEST(KernelChoice, FewerThreadsWhereTheyAreNoSlower) {
  const auto with = [](int threads, double one_row, double rows) {
    return KernelTrial{kBuiltInKernels, threads, one_row, rows, "CPU_REPACK"};
  };
  // More threads than big cores: the slow cores hold all up.
  KernelChoice choice = ChooseKernels("Q4_0", {with(6, 30e9, 6e9), with(5, 29e9, 5e9), with(8, 21e9, 5e9)});
  EXPECT_EQ(choice.chosen().threads, 6);
  EXPECT_THAT(choice.why, HasSubstr("is the fastest"));
  // What five cores read, six do not read faster; prompts gain a little, and it is not worth the heat.
  choice = ChooseKernels("Q4_0", {with(6, 30e9, 6e9), with(5, 33e9, 5.9e9), with(4, 33e9, 5.85e9), with(3, 25e9, 3e9)});
  EXPECT_EQ(choice.chosen().threads, 4);
  EXPECT_THAT(choice.why, HasSubstr("times as fast as built in with 6 threads"));
  choice = ChooseKernels("Q4_0", {with(6, 30e9, 6e9), with(5, 30.1e9, 6e9)});
  EXPECT_EQ(choice.chosen().threads, 5);
  EXPECT_THAT(choice.why, HasSubstr("and heats less"));
  // A gain below the noise is none, and what did not run is not fewer threads.
  choice = ChooseKernels("Q4_0", {with(6, 30e9, 6e9), with(8, 31e9, 6.1e9), with(3, 0, 0)});
  EXPECT_EQ(choice.chosen().threads, 6);
  // All cores, where that is faster by more than noise.
  EXPECT_EQ(ChooseKernels("Q4_0", {with(6, 30e9, 6e9), with(8, 36e9, 8e9)}).chosen().threads, 8);
}

TEST(KernelChoice, TriesThreadsAtTheBoundariesOfClusters) {
  DeviceProfile phone;
  phone.topology = PhoneTopology();
  EXPECT_EQ(OtherThreadCounts(phone, 6), (std::vector<int>{5, 3, 1, 8}));
  phone.cpu_quota = 3;
  EXPECT_EQ(OtherThreadCounts(phone, 3), (std::vector<int>{2, 1})) << "no more than the quota feeds";
  EXPECT_TRUE(OtherThreadCounts(DeviceProfile(), 1).empty());
}

TEST(KernelChoice, IsKeptForThisDeviceAlone) {
  const KernelTrial own{"armv8.6_2", 4, 10e9, 4e9, "CPU_REPACK"}, other{"armv8.6_2", 2, 20e9, 4e9, "CPU_REPACK"};
  const KernelChoice choice = ChooseKernels("Q4_0", {own, other});
  const std::string text = KernelChoiceJson(choice, "chip a");
  const auto read = ParseKernelChoice(text, "chip a");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->chosen().threads, 2);
  EXPECT_EQ(read->chosen().layout, "CPU_REPACK");
  EXPECT_EQ(read->why, choice.why);
  EXPECT_FALSE(ParseKernelChoice(text, "chip b"));
  EXPECT_FALSE(ParseKernelChoice("{}", "chip a"));
  EXPECT_FALSE(ParseKernelChoice("nonsense", "chip a"));
  EXPECT_FALSE(ParseKernelChoice(R"({"version":1,"device":"chip a","best":3,"trials":[]})", "chip a"));
}

}  // namespace
}  // namespace shoal
