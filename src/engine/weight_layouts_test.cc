// Which weights are told apart by name; the rest needs an ARM CPU (tests/arm).
#include "engine/weight_layouts.h"

#include <gtest/gtest.h>

#include <regex>

namespace shoal {
namespace {

TEST(WeightLayouts, APatternMatchesItsNamesAlone) {
  const std::regex pattern(PatternOf({"blk.1.attn_q.weight", "output.weight"}));
  EXPECT_TRUE(std::regex_search("blk.1.attn_q.weight", pattern));
  EXPECT_TRUE(std::regex_search("output.weight", pattern));
  EXPECT_FALSE(std::regex_search("blk.11.attn_q.weight", pattern));
  EXPECT_FALSE(std::regex_search("blk.1xattn_q.weight", pattern));
  EXPECT_FALSE(std::regex_search("output.weight.scale", pattern));
}

}  // namespace
}  // namespace shoal
