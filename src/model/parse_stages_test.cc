// The --stages text: what it means, and which mistake each error names.
#include <gtest/gtest.h>

#include "model/model_info.h"

namespace shoal {
namespace {

using Ranges = std::vector<LayerRange>;

void ExpectInvalid(std::string_view text, std::int32_t n_layer, std::string_view part) {
  const auto stages = ParseStages(text, n_layer);
  ASSERT_FALSE(stages.ok()) << text;
  EXPECT_EQ(stages.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(stages.error().message.find(part), std::string::npos) << stages.error().message << "\nlacks: " << part;
}

TEST(ParseStages, NumberCutsEvenly) {
  EXPECT_EQ(*ParseStages("1", 30), (Ranges{{0, 30}}));
  EXPECT_EQ(*ParseStages("3", 30), (Ranges{{0, 10}, {10, 20}, {20, 30}}));
  EXPECT_EQ(*ParseStages("4", 30), (Ranges{{0, 8}, {8, 16}, {16, 23}, {23, 30}}));
  EXPECT_EQ(*ParseStages("2", 2), (Ranges{{0, 1}, {1, 2}}));
  EXPECT_EQ(ParseStages("30", 30)->size(), 30U);
}

TEST(ParseStages, RangesAsWritten) {
  EXPECT_EQ(*ParseStages("0-9,10-19,20-29", 30), (Ranges{{0, 10}, {10, 20}, {20, 30}}));
  EXPECT_EQ(*ParseStages("0-29", 30), (Ranges{{0, 30}}));
  EXPECT_EQ(*ParseStages("0,1-1,2-3", 4), (Ranges{{0, 1}, {1, 2}, {2, 4}}));
}

TEST(ParseStages, SaysWhichPartIsWrong) {
  ExpectInvalid("0", 30, "at least one");
  ExpectInvalid("31", 30, "31 of them, but the model has 30 layers");
  ExpectInvalid("0-9,20-29", 30, "a gap: layers 10-19 before 20-29");
  ExpectInvalid("5-29", 30, "a gap: layers 0-4 before 5-29");
  ExpectInvalid("0-9,10-19", 30, "a gap: layers 20-29 at the end");
  ExpectInvalid("0-9,9-29", 30, "9-29 should start at layer 10");
  ExpectInvalid("10-29,0-9", 30, "a gap: layers 0-9 before 10-29");
  ExpectInvalid("0-9,0-9,10-29", 30, "0-9 should start at layer 10");
  ExpectInvalid("0-9,10-30", 30, "'10-30' is out of range: the model has layers 0-29");
  ExpectInvalid("0-9,19-10", 30, "'19-10' ends before it starts");
}

TEST(ParseStages, RefusesGarbage) {
  ExpectInvalid("", 30, "give their number");
  ExpectInvalid("three", 30, "'three' is not a number");
  ExpectInvalid("3 ", 30, "'3 '");
  ExpectInvalid("+3", 30, "'+3'");
  ExpectInvalid("3.5", 30, "'3.5'");
  ExpectInvalid("0x3", 30, "'0x3'");
  ExpectInvalid("-3", 30, "'-3'");
  ExpectInvalid("-", 30, "'-'");
  ExpectInvalid(",", 30, "''");
  ExpectInvalid("0-29,", 30, "''");
  ExpectInvalid("0--29", 30, "'0--29'");
  ExpectInvalid("0-9-29", 30, "'0-9-29'");
  ExpectInvalid("0-29;rm", 30, "'0-29;rm'");
  ExpectInvalid("\x1b[2J", 30, "'?[2J'");
  ExpectInvalid("4294967297", 30, "is not a number");
  ExpectInvalid("99999999999999999999", 30, "is not a number");
  ExpectInvalid("0-99999999999999999999", 30, "is not a range");
  ExpectInvalid("0-2147483647", 30, "out of range");
  ExpectInvalid("2147483647", 30, "2147483647 of them");
  ExpectInvalid(std::string(100000, '9'), 30, "...");
  ExpectInvalid("1", 0, "no layers");
}

}  // namespace
}  // namespace shoal
