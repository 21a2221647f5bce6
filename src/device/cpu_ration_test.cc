// Quotas of both versions of control groups, from trees of files.
#include "device/cpu_ration.h"

#include <gtest/gtest.h>

#include "base/test_folder.h"

namespace shoal {
namespace {

class CpuQuotaTest : public testing::Test {
 protected:
  void Put(const std::string& path, const std::string& text) { folder_.Write(path, text); }
  const TestFolder folder_;
  const std::string root_ = folder_.path();
};

TEST_F(CpuQuotaTest, TheTightestGroupCounts) {
  Put("/proc/self/cgroup", "0::/system.slice/shoal.service\n");
  Put("/sys/fs/cgroup/system.slice/shoal.service/cpu.max", "max 100000\n");
  EXPECT_EQ(CpuQuota(root_), std::nullopt);
  Put("/sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
  EXPECT_EQ(CpuQuota(root_), 1.5);
  Put("/sys/fs/cgroup/system.slice/shoal.service/cpu.max", "25000 50000\n");
  EXPECT_EQ(CpuQuota(root_), 0.5);
}

TEST_F(CpuQuotaTest, VersionOne) {
  Put("/proc/self/cgroup", "4:cpu,cpuacct:/slow\n3:memory:/other\n");
  Put("/sys/fs/cgroup/cpu/slow/cpu.cfs_quota_us", "-1\n");
  Put("/sys/fs/cgroup/cpu/slow/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CpuQuota(root_), std::nullopt);
  Put("/sys/fs/cgroup/cpu/slow/cpu.cfs_quota_us", "45000\n");
  EXPECT_EQ(CpuQuota(root_), 0.45);
}

TEST_F(CpuQuotaTest, NonsenseIsNoQuota) {
  Put("/proc/self/cgroup", "0::/a\nnonsense\n");
  for (const char* text : {"", "100000", "0 100000", "x y", "-5 0", "100000 0"}) {
    Put("/sys/fs/cgroup/a/cpu.max", text);
    EXPECT_EQ(CpuQuota(root_), std::nullopt) << text;
  }
  EXPECT_EQ(CpuQuota(root_ + "/absent"), std::nullopt);
}

}  // namespace
}  // namespace shoal
