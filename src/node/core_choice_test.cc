// Which cores threads get on a phone, in a background process, and where all cores are alike.
#include "node/core_choice.h"

#include <gtest/gtest.h>

#include "device/test_cores.h"
#include "node/device_speed.h"
#include "node/speed_keeper.h"

namespace shoal {
namespace {

DeviceProfile Phone(int allowed_below = 8) {
  DeviceProfile profile;
  profile.topology = PhoneTopology(allowed_below);
  return profile;
}

TEST(ChooseCores, FastCoresOfAPhone) {
  EngineOptions options;
  options.threads = 8;
  ChooseCores(Phone(), false, options);
  EXPECT_EQ(options.cpus, (std::vector<int>{7, 2, 3, 4, 5, 6}));
  EXPECT_EQ(options.threads, 6);
}

// What a speed is measured with is what a stage has.
TEST(SpeedCpus, AsManyAsThereAreThreads) {
  EXPECT_EQ(SpeedCpus(Phone(), 0), (std::vector<int>{7, 2, 3, 4, 5, 6}));
  EXPECT_EQ(SpeedCpus(Phone(), 2), (std::vector<int>{7, 2}));
  EXPECT_EQ(SpeedCpus(Phone(), 7), (std::vector<int>{7, 2, 3, 4, 5, 6, 0})) << "the slow cores after the fast ones";
  EXPECT_EQ(SpeedCpus(Phone(), 20).size(), 8U);
  DeviceProfile rationed = Phone();
  rationed.cpu_quota = 2.5;
  EXPECT_EQ(SpeedCpus(rationed, 0).size(), 3U);
  EXPECT_EQ(SpeedCpus(rationed, 8).size(), 8U) << "who asks for them gets them";
}

TEST(ThreadsToFeed, AreThoseOfTheTypesThatAreHere) {
  const StageThreads threads = [](const std::string& type) { return type == "Q8_0" ? 2 : type == "Q4_0" ? 4 : 0; };
  EXPECT_EQ(ThreadsToFeed(Phone(), {"Q8_0"}, threads), 2U);
  EXPECT_EQ(ThreadsToFeed(Phone(), {"Q8_0", "Q4_0"}, threads), 4U);
  EXPECT_EQ(ThreadsToFeed(Phone(), {}, threads), 6U);
}

TEST(ChooseCores, AsManyAsAskedFor) {
  EngineOptions options;
  options.threads = 3;
  ChooseCores(Phone(), true, options);
  EXPECT_EQ(options.cpus, (std::vector<int>{7, 2, 3}));
  options = {};
  options.threads = 8;
  ChooseCores(Phone(), true, options);
  EXPECT_TRUE(options.cpus.empty()) << "more threads than fast cores: the system places them";
  EXPECT_EQ(options.threads, 8);
}

TEST(ChooseCores, StagesOfOneMachineHaveCoresOfTheirOwn) {
  std::vector<EngineOptions> stages(2);
  ChooseCores(Phone(), false, stages);
  EXPECT_EQ(stages[0].cpus, (std::vector<int>{7, 2, 3}));
  EXPECT_EQ(stages[1].cpus, (std::vector<int>{4, 5, 6}));
  EXPECT_EQ(stages[1].threads, 3);
  stages.assign(7, {});
  ChooseCores(Phone(), false, stages);
  EXPECT_TRUE(stages[0].cpus.empty()) << "more stages than fast cores";
  stages.assign(2, {});
  stages[0].threads = stages[1].threads = 4;
  ChooseCores(Phone(), true, stages);
  EXPECT_TRUE(stages[0].cpus.empty() && stages[0].threads == 4) << "threads that somebody asked for";
}

TEST(ChooseCores, LeavesAloneWhatIsGivenOrAlike) {
  EngineOptions options;
  options.threads = 2;
  options.cpus = {0, 1};
  ChooseCores(Phone(), true, options);
  EXPECT_EQ(options.cpus, (std::vector<int>{0, 1}));
  options = {};
  options.threads = 4;
  DeviceProfile alike = Phone();
  for (Core& core : alike.topology.cores) core.id = CoreId{0x41, 0, 0xd0b, 0};
  alike.topology.groups = GroupCores(alike.topology.cores, {});
  ChooseCores(alike, false, options);
  EXPECT_TRUE(options.cpus.empty());
  EXPECT_EQ(options.threads, 4);
  ChooseCores(Phone(2), false, options);
  EXPECT_TRUE(options.cpus.empty()) << "a background process has the slow cores only";
  EXPECT_EQ(options.threads, 2);
}

TEST(ChooseCores, OneThreadACoreAndNoMoreThanAQuotaFeeds) {
  DeviceProfile laptop = Phone();
  for (Core& core : laptop.topology.cores) {
    core.id = CoreId{0x41, 0, 0xd0b, 0};
    core.sibling = core.cpu % 4;
  }
  laptop.topology.groups = GroupCores(laptop.topology.cores, {});
  EngineOptions options;
  options.threads = 8;
  ChooseCores(laptop, false, options);
  EXPECT_EQ(options.threads, 4);
  EXPECT_TRUE(options.cpus.empty());
  options.threads = 8;
  ChooseCores(laptop, true, options);
  EXPECT_EQ(options.threads, 8) << "who asks for them gets them";
  laptop.cpu_quota = 1.5;
  ChooseCores(laptop, false, options);
  EXPECT_EQ(options.threads, 2);
  DeviceProfile phone = Phone();
  phone.cpu_quota = 3;
  options = {};
  options.threads = 8;
  ChooseCores(phone, false, options);
  EXPECT_EQ(options.cpus, (std::vector<int>{7, 2, 3}));
}

TEST(WaitingCpus, TheSlowCoresWhereThereAreOthers) {
  EXPECT_EQ(WaitingCpus(Phone()), (std::vector<int>{0, 1}));
  EXPECT_TRUE(WaitingCpus(Phone(2)).empty()) << "a background process has the slow cores only";
  DeviceProfile alike = Phone();
  for (Core& core : alike.topology.cores) core.id = CoreId{0x41, 0, 0xd0b, 0};
  alike.topology.groups = GroupCores(alike.topology.cores, {});
  EXPECT_TRUE(WaitingCpus(alike).empty());
}

}  // namespace
}  // namespace shoal
