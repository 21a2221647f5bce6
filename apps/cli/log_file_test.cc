// A log that is full becomes an old one; the oldest goes.
#include "apps/cli/log_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/test_folder.h"

namespace shoal::cli {
namespace {

namespace fs = std::filesystem;

std::string TextOf(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Puts stderr back at the end, whatever a test expects.
class LogFileTest : public testing::Test {
 protected:
  LogFileTest() : stderr_(::dup(STDERR_FILENO)) {}
  ~LogFileTest() override {
    ::dup2(stderr_, STDERR_FILENO);
    ::close(stderr_);
  }
  const int stderr_;
  const TestFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

TEST_F(LogFileTest, RotatesAndForgetsTheOldest) {
  const fs::path path = folder_ / "shoal.log";
  Result<LogFile> log = LogFile::Open(path.string(), 8);
  ASSERT_TRUE(log.ok()) << log.error().message;
  for (int i = 0; i < 6; ++i) {
    const std::string line = "line " + std::to_string(i) + " of it\n";
    ASSERT_EQ(::write(STDERR_FILENO, line.data(), line.size()), static_cast<ssize_t>(line.size()));
    log->RotateIfLarge();
  }
  EXPECT_EQ(TextOf(path), "");
  EXPECT_EQ(TextOf(path.string() + ".1"), "line 5 of it\n");
  EXPECT_EQ(TextOf(path.string() + ".3"), "line 3 of it\n");
  EXPECT_FALSE(fs::exists(path.string() + ".4"));
}

TEST_F(LogFileTest, KeepsWhatIsThereAndWhatFits) {
  const fs::path path = folder_ / "shoal.log";
  std::ofstream(path) << "earlier\n";
  Result<LogFile> log = LogFile::Open(path.string());
  ASSERT_TRUE(log.ok());
  ASSERT_EQ(::write(STDERR_FILENO, "now\n", 4), 4);
  log->RotateIfLarge();
  EXPECT_EQ(TextOf(path), "earlier\nnow\n");
  EXPECT_FALSE(fs::exists(path.string() + ".1"));
}

TEST_F(LogFileTest, BeginsANewOneWhereItIsFull) {
  const fs::path path = folder_ / "shoal.log";
  std::ofstream(path) << "earlier\n";
  Result<LogFile> log = LogFile::Open(path.string(), 8);
  ASSERT_TRUE(log.ok());
  ASSERT_EQ(::write(STDERR_FILENO, "now\n", 4), 4);
  EXPECT_EQ(TextOf(path), "now\n");
  EXPECT_EQ(TextOf(path.string() + ".1"), "earlier\n");
}

TEST_F(LogFileTest, MakesItsFolder) {
  ASSERT_TRUE(LogFile::Open((folder_ / "home" / "shoal.log").string()).ok());
  EXPECT_TRUE(fs::exists(folder_ / "home" / "shoal.log"));
}

TEST_F(LogFileTest, SaysWhereItCannotWrite) {
  const Result<LogFile> log = LogFile::Open((folder_ / "absent" / "absent" / "shoal.log").string());
  ASSERT_FALSE(log.ok());
  EXPECT_NE(log.error().message.find("absent"), std::string::npos);
}

}  // namespace
}  // namespace shoal::cli
