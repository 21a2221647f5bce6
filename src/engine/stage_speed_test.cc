// Real models' shapes are measured, plausibly, whatever their weights are.
#include "engine/stage_speed.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/test_models.h"
#include "device/cpu_affinity.h"

namespace shoal {
namespace {

class StageSpeedOf : public testing::TestWithParam<const char*> {};

TEST_P(StageSpeedOf, IsPlausible) {
  const auto model = OpenModelFile(TestModelPath(GetParam()));
  ASSERT_TRUE(model.ok()) << model.error().message;
  StageSpeedOptions options;
  options.weight_bytes = 16U << 20;
  options.time_max = std::chrono::milliseconds(500);
  const std::vector<int> before = AllowedCpus();
  options.cpus = {before.front()};
  const auto speed = MeasureStageSpeed(*model, options);
  ASSERT_TRUE(speed.ok()) << speed.error().message;
  EXPECT_EQ(AllowedCpus(), before);
  for (const double value :
       {speed->pass_s, speed->one_row_bytes_s, speed->pair_bytes_s, speed->quad_bytes_s, speed->group_bytes_s,
        speed->rows_bytes_s, speed->kv_bytes_s, speed->kv_rows_bytes_s, speed->output_bytes_s,
        speed->output_pair_bytes_s, speed->output_quad_bytes_s, speed->output_group_bytes_s}) {
    EXPECT_TRUE(std::isfinite(value) && value > 0) << value;
  }
  EXPECT_GT(speed->one_row_bytes_s, speed->rows_bytes_s) << "64 rows are more work than one";
}

INSTANTIATE_TEST_SUITE_P(Models, StageSpeedOf, testing::Values("smollm2", "gemma3"));

}  // namespace
}  // namespace shoal
