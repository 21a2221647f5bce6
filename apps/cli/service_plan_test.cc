// Words reach the node as they were given, through each system's own quoting.
#include "apps/cli/service_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shoal::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

const ServicePlaces kPlaces{"/opt/shoal", "/u", "/u/.shoal", "/data/data/com.termux/files/usr", "/u/.config", 501};

TEST(PlanService, TermuxTakesTheWakeLockAndBecomesTheNode) {
  const ServicePlan plan = PlanService(ServiceKind::kTermux, kPlaces, {"--name", "it's a phone"});
  const ServiceFile& run = plan.files.front();
  EXPECT_EQ(run.path, "/data/data/com.termux/files/usr/var/service/shoal/run");
  EXPECT_EQ(run.mode, 0755);
  EXPECT_THAT(run.text, testing::StartsWith("#!/data/data/com.termux/files/usr/bin/sh\n"));
  EXPECT_THAT(run.text, HasSubstr("\ntermux-wake-lock\nexec '/opt/shoal' 'up' '--quiet' '--log-file' "
                                  "'/u/.shoal/shoal.log' '--name' 'it'\\''s a phone'\n"));
  EXPECT_EQ(plan.files[1].path, "/u/.termux/boot/shoal");
}

TEST(PlanService, SystemdExpandsNothingInWords) {
  const ServicePlan plan = PlanService(ServiceKind::kSystemd, kPlaces, {"--name", "50% $HOME \"x\""});
  const ServiceFile& unit = plan.files.front();
  EXPECT_EQ(unit.path, "/u/.config/systemd/user/shoal.service");
  EXPECT_THAT(unit.text, HasSubstr("ExecStart=\"/opt/shoal\" \"up\" \"--quiet\" \"--name\" "
                                   "\"50%% $$HOME \\\"x\\\"\"\n"));
  EXPECT_THAT(unit.text, HasSubstr("Restart=always\n"));
  EXPECT_THAT(unit.text, Not(HasSubstr("--log-file")));  // the journal keeps it
}

TEST(PlanService, LaunchdEscapesXml) {
  const ServicePlan plan = PlanService(ServiceKind::kLaunchd, kPlaces, {"--name", "<a&b>"});
  EXPECT_THAT(plan.files.front().text, HasSubstr("<string>&lt;a&amp;b&gt;</string>"));
  EXPECT_EQ(plan.stop.front().back(), "gui/501/shoal.node");
}

TEST(ServiceKindNamed, KnowsThree) {
  EXPECT_EQ(ServiceKindNamed("termux"), ServiceKind::kTermux);
  EXPECT_EQ(ServiceKindNamed("sysv"), std::nullopt);
}

}  // namespace
}  // namespace shoal::cli
