// That made-up weights look to a processor as a model's do.
#include "engine/made_up_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

namespace shoal {
namespace {

TEST(MadeUpRows, AreWholeRowsAtLeastOne) {
  const std::size_t row = ggml_row_size(GGML_TYPE_Q8_0, 576);
  EXPECT_EQ(MadeUpRows(GGML_TYPE_Q8_0, 576).size() % row, 0U);
  EXPECT_GT(MadeUpRows(GGML_TYPE_Q8_0, 576).size(), 16 * row);
  EXPECT_EQ(MadeUpRows(GGML_TYPE_F16, 1 << 20).size(), ggml_row_size(GGML_TYPE_F16, 1 << 20));
  EXPECT_EQ(MadeUpRows(GGML_TYPE_Q8_0, 576), MadeUpRows(GGML_TYPE_Q8_0, 576)) << "two devices measure the same";
}

TEST(MadeUpRows, TheirBlocksHaveManyScalesOfSomeOctaves) {
  const std::vector<std::uint8_t> rows = MadeUpRows(GGML_TYPE_Q4_1, 576);
  const std::size_t block = ggml_type_size(GGML_TYPE_Q4_1);  // which begins with its scale
  std::set<ggml_fp16_t> scales;
  double sum = 0, squares = 0;
  const std::size_t blocks = rows.size() / block;
  for (std::size_t at = 0; at < rows.size(); at += block) {
    ggml_fp16_t scale = 0;
    std::memcpy(&scale, rows.data() + at, sizeof scale);
    scales.insert(scale);
    const double octaves = std::log2(ggml_fp16_to_fp32(scale));
    sum += octaves;
    squares += octaves * octaves;
  }
  EXPECT_GT(scales.size(), 1'000U);
  const double mean = sum / static_cast<double>(blocks);
  const double deviation = std::sqrt(squares / static_cast<double>(blocks) - mean * mean);
  EXPECT_GT(deviation, 0.3);
  EXPECT_LT(deviation, 0.8);
}

}  // namespace
}  // namespace shoal
