// The test program finds itself.
#include "base/program_path.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace shoal {
namespace {

TEST(ProgramPath, IsThisProgram) {
  const std::filesystem::path path = ProgramPath();
  EXPECT_TRUE(path.is_absolute()) << path;
  EXPECT_EQ(path.filename(), "shoal_base_test");
}

}  // namespace
}  // namespace shoal
