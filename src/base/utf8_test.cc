// What is valid UTF-8, what becomes of the rest, and where a text is cut.
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

TEST(Utf8, ValidTextStaysAsItIs) {
  for (const std::string text : {"", "plain", "caf\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x90\x9F", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
    EXPECT_EQ(ValidUtf8(text, 100), text);
  }
}

TEST(Utf8, EachBrokenPartBecomesOneReplacement) {
  const std::string r(kUtf8Replacement);
  EXPECT_EQ(ValidUtf8("a\xFFz", 100), "a" + r + "z");
  EXPECT_EQ(ValidUtf8("\x80\x80", 100), r + r);
  EXPECT_EQ(ValidUtf8("\xF0\x9F\x90!", 100), r + "!");           // the end is missing
  EXPECT_EQ(ValidUtf8("\xC0\xAF", 100), r + r);                  // overlong
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80", 100), r + r + r);          // a surrogate
  EXPECT_EQ(ValidUtf8("\xF4\x90\x80\x80", 100), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(ValidUtf8("cut \xE2\x82", 100), "cut " + r);
  for (const char* text : {"\xFF", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "ok \xE2\x82"}) EXPECT_FALSE(IsValidUtf8(text));
}

TEST(Utf8, CutsBetweenCharacters) {
  const std::string text =
      "ab\xE2\x82\xAC"
      "c";
  EXPECT_EQ(ValidUtf8(text, 0), "");
  EXPECT_EQ(ValidUtf8(text, 2), "ab");
  EXPECT_EQ(ValidUtf8(text, 3), "ab");
  EXPECT_EQ(ValidUtf8(text, 4), "ab");
  EXPECT_EQ(ValidUtf8(text, 5), "ab\xE2\x82\xAC");
  EXPECT_EQ(ValidUtf8("a\xFF", 3), "a");  // no room for the replacement
}

}  // namespace
}  // namespace shoal
