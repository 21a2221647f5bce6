// Twenty minutes on simulated phones: pacing wins where the limiter takes cores offline, and costs nothing elsewhere.
// bench/phone.cc is the whole table.
#include "tests/phone/paced_phone.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

namespace shoal {
namespace {

constexpr double kRoom_c = 25, kSeconds = 1200;

class PacedPhoneTest : public testing::Test {
 protected:
  PacedRun Run(const std::string& name, Pacing pacing, const std::optional<Pacer::Known>& known = {}) {
    const std::vector<PhoneModel> phones = KnownPhones();
    const auto phone = std::find_if(phones.begin(), phones.end(), [&](const auto& one) { return one.name == name; });
    EXPECT_NE(phone, phones.end()) << name;
    const std::string root = MakePhoneFolder();
    const PacedRun run = RunPhone(*phone, kRoom_c, kSeconds, pacing, known, root);
    std::filesystem::remove_all(root);
    return run;
  }
};

TEST_F(PacedPhoneTest, MoreTokensWhereCoresWouldBeTakenOffline) {
  const PacedRun without = Run("Snapdragon 810", Pacing::kOff), with = Run("Snapdragon 810", Pacing::kOn);
  EXPECT_GT(with.work_share, 1.15 * without.work_share);
  EXPECT_LT(with.limited_share, without.limited_share);
  ASSERT_TRUE(with.known);
  const PacedRun again = Run("Snapdragon 810", Pacing::kOn, with.known);
  EXPECT_GE(again.work_share, with.work_share);
  EXPECT_LT(again.peak_die_c, without.peak_die_c);
}

TEST_F(PacedPhoneTest, NothingIsLostWhereFrequenciesAreLowered) {
  const PacedRun without = Run("Snapdragon 8 Elite", Pacing::kOff), with = Run("Snapdragon 8 Elite", Pacing::kOn);
  EXPECT_GT(without.limited_share, 0.5);
  EXPECT_GT(with.work_share, 0.98 * without.work_share);
}

TEST_F(PacedPhoneTest, ACoolDeviceIsLeftAlone) {
  const PacedRun with = Run("cooled", Pacing::kOn);
  EXPECT_EQ(with.rest_share, 0);
  EXPECT_EQ(with.limited_share, 0);
}

}  // namespace
}  // namespace shoal
