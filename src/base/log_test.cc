// Which lines are written, how they look, and that lines of several threads do not mix.
#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace shoal {
namespace {

using testing::MatchesRegex;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { SetLogLevel(before_); }
  const LogLevel before_ = GetLogLevel();
};

std::string Captured(LogLevel level, LogLevel message_level) {
  SetLogLevel(level);
  testing::internal::CaptureStderr();
  Log(message_level, "engine", "loaded 3 layers");
  return testing::internal::GetCapturedStderr();
}

TEST_F(LogTest, LevelDecidesWhatIsWritten) {
  const LogLevel levels[] = {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError};
  for (const LogLevel level : levels) {
    for (const LogLevel message : levels) EXPECT_EQ(Captured(level, message).empty(), message < level);
    EXPECT_EQ(Captured(LogLevel::kOff, level), "");
    EXPECT_EQ(Captured(level, LogLevel::kOff), "");
    SetLogLevel(level);
    EXPECT_EQ(GetLogLevel(), level);
  }
}

TEST_F(LogTest, LineHasTimeLevelComponentAndMessage) {
  const std::string line = Captured(LogLevel::kInfo, LogLevel::kWarning);
  EXPECT_THAT(line, MatchesRegex("[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3} warning engine: loaded 3 layers\n"));
}

TEST_F(LogTest, LinesOfSeveralThreadsDoNotMix) {
  constexpr int kThreads = 4, kEach = 50;
  SetLogLevel(LogLevel::kInfo);
  testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < kEach; ++i) Log(LogLevel::kInfo, "t", std::string(50, static_cast<char>('a' + t)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::istringstream lines(testing::internal::GetCapturedStderr());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_THAT(line, MatchesRegex("[0-9:.]{12} info t: (a{50}|b{50}|c{50}|d{50})"));
  }
  EXPECT_EQ(count, kThreads * kEach);
}

}  // namespace
}  // namespace shoal
