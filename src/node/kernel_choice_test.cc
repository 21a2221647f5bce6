// Which backends are tried, which one wins, and what is kept of it.
#include "node/kernel_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/program_path.h"
#include "base/test_folder.h"
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
  for (const KernelTrial& trial : KernelCandidates(backends, 4, true)) {
    names.push_back(trial.variant);
    EXPECT_EQ(trial.threads, 4);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"armv8.6_2", "armv8.6_0", "armv8.2_2", "armv8.6_2-kleidiai",
                                             "armv8.2_2-kleidiai"}));
  const std::vector<KernelTrial> built_in = KernelCandidates({}, 4, true);
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

TEST(KernelChoice, TriesSmeWithAndWithoutWhereTheCpuHasIt) {
  const std::vector<CpuBackendFile> backends{
      {"armv9.2_2", "", 90}, {"armv9.2_2-kleidiai", "", 90}, {"armv8.6_2", "", 40}, {"armv8.6_2-kleidiai", "", 40}};
  const auto trials = [&](bool has_sme) {
    std::vector<std::string> texts;
    for (const KernelTrial& trial : KernelCandidates(backends, 2, has_sme)) texts.push_back(KernelTrialText(trial));
    return texts;
  };
  EXPECT_EQ(trials(true), (std::vector<std::string>{"armv9.2_2 with 2 threads", "armv8.6_2 with 2 threads",
                                                    "armv9.2_2-kleidiai with 2 threads, without SME",
                                                    "armv9.2_2-kleidiai with 2 threads, with SME",
                                                    "armv8.6_2-kleidiai with 2 threads"}));
  EXPECT_EQ(trials(false).size(), 4U);
}

KernelChoice Chosen(const std::string& type, const KernelTrial& own, const KernelTrial& other) {
  return ChooseKernels(type, {own, other});
}

TEST(KernelChoice, OneBackendIsTakenForAllTypes) {
  const KernelTrial own{"x", 4, 10e9, 4e9, ""};
  // Much faster for one type, a little slower for the other: all in all it gains.
  const KernelChoices both{Chosen("Q4_0", own, {"x-kleidiai", 4, 20e9, 8e9, ""}),
                           Chosen("Q4_K", own, {"x-kleidiai", 4, 9.5e9, 3.9e9, ""})};
  EXPECT_EQ(SettingOf(both, "")->variant, "x-kleidiai");
  EXPECT_EQ(SettingOf(both, "Q4_K")->variant, "x") << "a process of one model takes what is best for that";
  // The other way round.
  const KernelChoices other{Chosen("Q4_0", own, {"x-kleidiai", 4, 11e9, 4.4e9, ""}),
                            Chosen("Q4_K", own, {"x-kleidiai", 4, 5e9, 2e9, ""})};
  EXPECT_EQ(SettingOf(other, "")->variant, "x");
  EXPECT_EQ(SettingOf({}, ""), nullptr);
}

TEST(KernelChoice, ThreadsAreThoseOfTheTypeAndOfTheBackendThatRuns) {
  const KernelTrial own{"x", 6, 10e9, 4e9, ""};
  const KernelChoices choices{Chosen("Q4_0", own, {"x", 4, 20e9, 8e9, ""}),
                              Chosen("Q8_0", own, {"x", 5, 9e9, 3e9, ""})};
  EXPECT_EQ(ThreadsOf(choices, "Q4_0", "x"), 4);
  EXPECT_EQ(ThreadsOf(choices, "Q8_0", "x"), 0) << "one on each fast core, however many there are then";
  EXPECT_EQ(ThreadsOf(choices, "Q4_0", "y"), 0) << "another backend runs";
  EXPECT_EQ(ThreadsOf({choices[0]}, "Q6_K", "x"), 4) << "what was found for another type is the best guess";
  EXPECT_EQ(ThreadsOf({choices[0]}, "", "x"), 0) << "of no type in particular: not the last one's";
  EXPECT_EQ(WeightsTypeOf("Q4_K_M"), "Q4_K");
  EXPECT_EQ(WeightsTypeOf("Q8_0"), "Q8_0");
}

// A rebuild with other flags has the same names and ggml's version.
TEST(KernelChoice, IsOfTheFilesThatHaveTheKernels) {
  const TestFolder folder;
  const std::string file = folder.path() + "/libggml-cpu-zen4.so";
  const std::vector<CpuBackendFile> backends{{"zen4", file, 9}};
  const DeviceProfile profile;
  std::ofstream(file) << "kernels";
  const std::string before = KernelsFingerprint(profile, backends);
  EXPECT_EQ(KernelsFingerprint(profile, backends), before);
  std::filesystem::last_write_time(file, std::filesystem::last_write_time(file) + std::chrono::seconds(1));
  const std::string later = KernelsFingerprint(profile, backends);
  EXPECT_NE(later, before);
  const auto changed = std::filesystem::last_write_time(file);
  std::ofstream(file, std::ios::app) << " of another compiler";
  std::filesystem::last_write_time(file, changed);
  EXPECT_NE(KernelsFingerprint(profile, backends), later);
  // Built in: of the program.
  EXPECT_THAT(KernelsFingerprint(profile, {}), HasSubstr(ProgramPath() + " "));
}

TEST(KernelChoice, IsKeptForThisDeviceAlone) {
  const KernelTrial own{"armv8.6_2", 4, 10e9, 4e9, "CPU_REPACK"}, other{"armv8.6_2", 2, 20e9, 4e9, "CPU_REPACK"};
  const KernelChoices choices{ChooseKernels("Q4_0", {own, other}), ChooseKernels("Q8_0", {own})};
  const std::string text = KernelChoicesJson(choices, "chip a");
  const KernelChoices read = ParseKernelChoices(text, "chip a");
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[0].chosen().threads, 2);
  EXPECT_EQ(read[0].chosen().layout, "CPU_REPACK");
  EXPECT_EQ(read[0].chosen().sme, -1);
  EXPECT_EQ(read[0].why, choices[0].why);
  EXPECT_EQ(read[1].quantization, "Q8_0");
  EXPECT_TRUE(ParseKernelChoices(text, "chip b").empty());
  EXPECT_TRUE(ParseKernelChoices("{}", "chip a").empty());
  EXPECT_TRUE(ParseKernelChoices("nonsense", "chip a").empty());
  EXPECT_TRUE(
      ParseKernelChoices(R"({"version":3,"device":"chip a","choices":[{"quantization":"Q4_0","best":3,"trials":[]}]})",
                         "chip a")
          .empty());
}

// A file that somebody wrote by hand: what is shown of it is cast to whole bytes.
TEST(KernelChoice, SpeedsThatNoDeviceReachesDidNotRun) {
  const KernelChoices read =
      ParseKernelChoices(R"({"version":3,"device":"chip a","choices":[{"quantization":"Q4_0","best":0,"trials":[)"
                         R"({"variant":"x","threads":1,"sme_threads":-1,"one_row_bytes_s":1e10,"rows_bytes_s":1e300},)"
                         R"({"variant":"y","threads":1,"sme_threads":-1,"one_row_bytes_s":-5,"got":1}]}]})",
                         "chip a");
  ASSERT_EQ(read.size(), 1U);
  ASSERT_EQ(read[0].trials.size(), 2U);
  EXPECT_EQ(read[0].trials[0].one_row_bytes_s, 1e10);
  EXPECT_EQ(read[0].trials[0].rows_bytes_s, 0);
  EXPECT_EQ(read[0].trials[1].one_row_bytes_s, 0);
  EXPECT_EQ(read[0].trials[1].rows_bytes_s, 0);
}

}  // namespace
}  // namespace shoal
