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

// SVDIR is set by the profile of new sessions alone.
TEST(PlanService, TermuxSaysWhereServicesAre) {
  const ServicePlan plan = PlanService(ServiceKind::kTermux, kPlaces, {});
  const std::string folder = "/data/data/com.termux/files/usr/var/service";
  for (const ServiceFile& file : plan.files) {
    if (file.text.find("\nsv ") == std::string::npos && file.text.find("-lock\nsv ") == std::string::npos) continue;
    EXPECT_THAT(file.text, HasSubstr("export SVDIR='" + folder + "'")) << file.path;
  }
  std::vector<ServiceCommand> commands = plan.start;
  commands.insert(commands.end(), plan.stop.begin(), plan.stop.end());
  for (const ServiceCommand& command : commands) {
    if (command.words.front() == "termux-wake-unlock") continue;
    EXPECT_EQ(command.words.front(), "env");
    EXPECT_EQ(command.words[1], "SVDIR=" + folder);
  }
  EXPECT_TRUE(plan.start.front().may_fail);       // runit runs already
  EXPECT_GE(plan.start[1].retry_max.count(), 7);  // it looks every 5 s
  EXPECT_EQ(plan.folders.front(), folder + "/shoal");
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
  EXPECT_EQ(plan.stop.front().words.back(), "gui/501/shoal.node");
}

TEST(PlanService, LaunchdUnloadsWhatIsLoadedFirst) {
  const ServicePlan plan = PlanService(ServiceKind::kLaunchd, kPlaces, {});
  ASSERT_EQ(plan.start.size(), 2U);
  EXPECT_EQ(plan.start[0].words, plan.stop.front().words);
  EXPECT_TRUE(plan.start[0].may_fail);  // nothing is loaded yet
  EXPECT_EQ(plan.start[1].words[1], "bootstrap");
  EXPECT_GT(plan.start[1].retry_max.count(), 20);  // as long as launchd lets a process end
}

TEST(HomebrewOptPath, LeavesOutTheVersion) {
  EXPECT_EQ(HomebrewOptPath("/opt/homebrew/Cellar/shoal/0.1.0_1/bin/shoal"), "/opt/homebrew/opt/shoal/bin/shoal");
  EXPECT_EQ(HomebrewOptPath("/usr/local/bin/shoal"), "");
  EXPECT_EQ(HomebrewOptPath("/x/Cellar/shoal"), "");
  EXPECT_EQ(HomebrewOptPath("/x/Cellar/shoal/0.1.0"), "");
}

TEST(ServiceKindNamed, KnowsThree) {
  EXPECT_EQ(ServiceKindNamed("termux"), ServiceKind::kTermux);
  EXPECT_EQ(ServiceKindNamed("sysv"), std::nullopt);
}

}  // namespace
}  // namespace shoal::cli
