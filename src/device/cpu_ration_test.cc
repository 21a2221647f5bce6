// Quotas of both versions of control groups, from trees of files.
#include "device/cpu_ration.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace shoal {
namespace {

class CpuQuotaTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "cpu_quota_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
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
