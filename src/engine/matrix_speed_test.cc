// The speed test runs, says plausible things, and leaves the calling thread where it was.
#include "engine/matrix_speed.h"

#include <gtest/gtest.h>

#include "device/cpu_affinity.h"

namespace shoal {
namespace {

SpeedTestOptions Short(const std::string& quantization) {
  SpeedTestOptions options;
  options.quantization = quantization;
  options.weight_bytes = 16U << 20;
  options.time_max = std::chrono::milliseconds(20);
  return options;
}

TEST(MeasureMatrixSpeed, EveryUsualType) {
  for (const char* type : {"Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16"}) {
    const auto speed = MeasureMatrixSpeed(Short(type));
    ASSERT_TRUE(speed.ok()) << type << ": " << speed.error().message;
    EXPECT_GT(speed->one_row_bytes_s, 1e6) << type;
    EXPECT_GT(speed->rows_bytes_s, 1e5) << type;
    EXPECT_LT(speed->rows_bytes_s, speed->one_row_bytes_s * 2) << type << ": 64 rows are more work than one";
    EXPECT_GT(speed->operation_s, 0) << type;
    EXPECT_FALSE(speed->layout.empty()) << type;
  }
}

TEST(MeasureMatrixSpeed, RefusesUnknownTypesAndCpus) {
  EXPECT_EQ(MeasureMatrixSpeed(Short("Q5_9")).error().code, ErrorCode::kInvalidArgument);
  SpeedTestOptions options = Short("Q4_0");
  options.cpus = {-1};
  EXPECT_EQ(MeasureMatrixSpeed(options).error().code, ErrorCode::kInvalidArgument);
}

#if defined(__linux__)
TEST(MeasureMatrixSpeed, LeavesTheThreadWhereItWas) {
  const std::vector<int> before = AllowedCpus();
  SpeedTestOptions options = Short("Q4_0");
  options.cpus = {before.front()};
  ASSERT_TRUE(MeasureMatrixSpeed(options).ok());
  EXPECT_EQ(AllowedCpus(), before);
}
#endif

}  // namespace
}  // namespace shoal
