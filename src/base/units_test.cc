// Sizes to text and back, at the borders of every unit.
#include "base/units.h"

#include <gtest/gtest.h>

#include <limits>

namespace shoal {
namespace {

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(kMiB - 1), "1.0 MiB");  // not 1024.0 KiB
  EXPECT_EQ(FormatBytes(98 * kMiB + 400 * kKiB), "98.4 MiB");
  EXPECT_EQ(FormatBytes(3 * kGiB / 2), "1.5 GiB");
  EXPECT_EQ(FormatBytes(1024 * kGiB), "1.0 TiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<std::uint64_t>::max()), "16.0 EiB");
}

TEST(ParseBytes, NumbersWithAndWithoutUnits) {
  const std::pair<const char*, std::uint64_t> cases[] = {{"0", 0},
                                                         {"4096", 4096},
                                                         {"4096B", 4096},
                                                         {"4k", 4 * kKiB},
                                                         {"4K", 4 * kKiB},
                                                         {"4KB", 4 * kKiB},
                                                         {"4KiB", 4 * kKiB},
                                                         {"512M", 512 * kMiB},
                                                         {"512 MiB", 512 * kMiB},
                                                         {"2.5G", 5 * kGiB / 2},
                                                         {"1.5g", 3 * kGiB / 2},
                                                         {"0.1K", 102},
                                                         {"1.25", 1},
                                                         {"0.5K", 512},
                                                         {"9007199254740993", 9007199254740993U}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(ParseBytes, RefusesWhatIsNoSize) {
  for (const char* text : {"",
                           "K",
                           "-1",
                           "+1",
                           " 1",
                           "1X",
                           "1KK",
                           "1iB",
                           "1Kx",
                           "1.",
                           ".5",
                           "1..5",
                           "1.5.5",
                           "nan",
                           "inf",
                           "1e3",
                           "0x10",
                           "99999999999999999999",
                           "9999999999G",
                           "1G ",
                           "one"}) {
    const auto parsed = ParseBytes(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument) << text;
    EXPECT_EQ(parsed.error().message.find(std::string(text) + "' is not a size"), 1U) << parsed.error().message;
  }
}

TEST(ParseBytes, EndsAtTwoToTheSixtyTwo) {
  EXPECT_EQ(*ParseBytes("4294967296G"), std::uint64_t{1} << 62);
  EXPECT_FALSE(ParseBytes("4294967297G").ok());
  EXPECT_EQ(*ParseBytes("4000000000000000000"), 4000000000000000000U);
}

TEST(ParseBytes, LongGarbageGivesAShortMessage) {
  EXPECT_LT(ParseBytes(std::string(100'000, 'x')).error().message.size(), 200U);
}

}  // namespace
}  // namespace shoal
