// Memory limits from made-up /proc and /sys trees.
#include "device/available_memory.h"

#include <gtest/gtest.h>

#include "base/test_folder.h"
#include "device/memory_facts.h"

namespace shoal {
namespace {

class AvailableMemoryTest : public testing::Test {
 protected:
  void SetUp() override { Write("/proc/meminfo", "MemTotal:  16000 kB\nMemFree:  10 kB\nMemAvailable:    8000 kB\n"); }
  void Write(const std::string& path, const std::string& text) { folder_.Write(path, text); }
  const TestFolder folder_;
  const std::string root_ = folder_.path();
};

TEST(ParseMeminfo, ReadsKibibytes) {
  EXPECT_EQ(ParseMeminfo("MemTotal: 5 kB\nMemAvailable:   1234 kB\n", "MemAvailable"), 1234U * 1024);
  EXPECT_FALSE(ParseMeminfo("MemTotal: 5 kB\n", "MemAvailable"));
  EXPECT_FALSE(ParseMeminfo("MemTotal: 5 kB\n", "Mem"));
  EXPECT_FALSE(ParseMeminfo("MemAvailable: none\n", "MemAvailable"));
}

TEST(ParseLimit, KnowsMax) {
  EXPECT_EQ(ParseLimit("1048576\n"), 1048576U);
  EXPECT_FALSE(ParseLimit("max\n"));
  EXPECT_FALSE(ParseLimit(""));
}

TEST(ParseStat, FindsWholeKeys) {
  const char* stat = "inactive_file_more 7\nanon 5\ninactive_file 42\n";
  EXPECT_EQ(ParseStat(stat, "inactive_file"), 42U);
  EXPECT_EQ(ParseStat(stat, "file"), 0U);
}

#if defined(__linux__)
TEST_F(AvailableMemoryTest, TheMachineWithoutGroups) { EXPECT_EQ(AvailableMemory(root_), 8000U * 1024); }

TEST_F(AvailableMemoryTest, TheTightestGroupCounts) {
  Write("/proc/self/cgroup", "0::/outer/inner\n");
  Write("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  Write("/sys/fs/cgroup/outer/inner/memory.current", "1000\n");
  Write("/sys/fs/cgroup/outer/memory.max", "500000\n");
  Write("/sys/fs/cgroup/outer/memory.current", "300000\n");
  Write("/sys/fs/cgroup/outer/memory.stat", "inactive_file 100000\n");
  EXPECT_EQ(AvailableMemory(root_), 300000U);
  EXPECT_EQ(MemoryLimit(root_), 500000U);
}

TEST_F(AvailableMemoryTest, VersionOneGroups) {
  Write("/proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/job\n");
  Write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "400000\n");
  Write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "500000\n");
  EXPECT_EQ(AvailableMemory(root_), 0U);
}

TEST_F(AvailableMemoryTest, NoLimitOfVersionOneIsNoLimit) {
  Write("/proc/self/cgroup", "5:memory:/\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n");
  EXPECT_EQ(AvailableMemory(root_), 8000U * 1024);
  EXPECT_FALSE(MemoryLimit(root_));
}

TEST(AvailableMemory, ThisMachineHasSome) {
  const auto bytes = AvailableMemory();
  ASSERT_TRUE(bytes);
  EXPECT_GT(*bytes, 1U << 20);
}
#endif

}  // namespace
}  // namespace shoal
