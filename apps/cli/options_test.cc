// Words of the command line: what is accepted, and what is refused with a hint.
#include <gtest/gtest.h>

#include <cstdlib>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"

namespace shoal::cli {
namespace {

TEST(ParseCpus, StagesBySlashesCoresByCommas) {
  EXPECT_EQ(*ParseCpus("0,1/2-4"), (std::vector<std::vector<int>>{{0, 1}, {2, 3, 4}}));
  EXPECT_EQ(*ParseCpus("3"), (std::vector<std::vector<int>>{{3}}));
  EXPECT_TRUE(ParseCpus("")->empty());
}

TEST(ParseCpus, RefusesWhatNamesNoCores) {
  for (const char* text : {"a", "0,x", "-1", "3-1", "0-99999", "1.5", "99999999999999"}) {
    const auto cpus = ParseCpus(text);
    ASSERT_FALSE(cpus.ok()) << text;
    EXPECT_EQ(cpus.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(ParseLogitBias, TokenEqualsBias) {
  EXPECT_EQ(*ParseLogitBias({"12=-5.5", "7=100"}), (std::vector<LogitBias>{{12, -5.5F}, {7, 100.0F}}));
  for (const char* text : {"12", "=1", "x=1", "1=", "1=y", "1=2=3", "1= 2", "1=1e99"}) {
    EXPECT_FALSE(ParseLogitBias({text}).ok()) << text;
  }
}

TEST(ResolveModel, LooksForAPathThenInHome) {
  setenv("SHOAL_HOME", "/nonexistent-home", 1);
  const auto missing = ResolveModel("no-such-model");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("/nonexistent-home/models"), std::string::npos);
  EXPECT_EQ(*ResolveModel("/dev/null"), "/dev/null");
}

TEST(MakeNodeOptions, RefusesUnknownTypes) {
  ModelOptions options;
  options.model = "/dev/null";
  options.wire = "f64";
  EXPECT_EQ(MakeNodeOptions(options).error().code, ErrorCode::kInvalidArgument);
  options.wire = "bf16";
  options.kv = "q4_9";
  EXPECT_EQ(MakeNodeOptions(options).error().code, ErrorCode::kInvalidArgument);
  options.kv = "q8_0";
  options.memory = "much";
  EXPECT_EQ(MakeNodeOptions(options).error().code, ErrorCode::kInvalidArgument);
  options.memory = "512M";
  EXPECT_EQ(MakeNodeOptions(options)->placement.memory_bytes_max, 512U << 20);
}

TEST(FormatTable, AlignsNumbersRightAndWordsLeft) {
  EXPECT_EQ(FormatTable({{"name", "size"}, {"a", "5 B"}, {"longer", "10 B"}}),
            "name    size\na        5 B\nlonger  10 B\n");
}

TEST(ExitCode, GroupsErrorsByWhatAPersonWouldDo) {
  EXPECT_EQ(ExitCodeFor(ErrorCode::kInvalidArgument), 2);
  EXPECT_EQ(ExitCodeFor(ErrorCode::kCorrupt), 3);
  EXPECT_EQ(ExitCodeFor(ErrorCode::kOutOfMemory), 4);
  EXPECT_EQ(ExitCodeFor(ErrorCode::kUnavailable), 5);
  EXPECT_EQ(ExitCodeFor(ErrorCode::kCancelled), 130);
  EXPECT_EQ(ExitCodeFor(ErrorCode::kInternal), 1);
}

}  // namespace
}  // namespace shoal::cli
