// Values, errors, the two macros, and the CHECK behind a wrong access.
#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

namespace shoal {
namespace {

Result<int> Half(int n) {
  if (n % 2 != 0) return Error{ErrorCode::kInvalidArgument, std::to_string(n) + " is odd"};
  return n / 2;
}

Result<int> Quarter(int n) {
  SHOAL_ASSIGN_OR_RETURN(const int half, Half(n));
  SHOAL_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

Status IsMultipleOfFour(int n) {
  SHOAL_RETURN_IF_ERROR(Half(n));
  SHOAL_RETURN_IF_ERROR(Quarter(n));
  return {};
}

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good = Half(8);
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(static_cast<bool>(good));
  EXPECT_EQ(good.value(), 4);
  EXPECT_EQ(*good, 4);
  const Result<int> bad = Half(7);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(bad.error().message, "7 is odd");
}

TEST(Result, MacrosPassTheFirstErrorOn) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(7).error().message, "7 is odd");
  EXPECT_EQ(Quarter(6).error().message, "3 is odd");
  EXPECT_TRUE(IsMultipleOfFour(4).ok());
  EXPECT_EQ(IsMultipleOfFour(2).error().message, "1 is odd");
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
  const auto pass = [&]() -> Result<std::unique_ptr<int>> {
    SHOAL_ASSIGN_OR_RETURN(auto value, make());
    ++*value;
    return value;
  };
  const std::unique_ptr<int> value = *pass();
  EXPECT_EQ(*value, 6);
}

TEST(Result, ArrowReachesTheValue) {
  Result<std::string> text = std::string("abc");
  EXPECT_EQ(text->size(), 3U);
  text->push_back('d');
  EXPECT_EQ(*text, "abcd");
}

TEST(ResultDeathTest, WrongAccessIsABug) {
  EXPECT_DEATH((void)Half(7).value(), "bug at .*ok()");
  EXPECT_DEATH((void)Half(8).error(), "bug at .*!ok()");
  EXPECT_DEATH((void)Status().error(), "bug at .*!ok()");
}

TEST(Check, PassesWhenTrueAndEvaluatesOnce) {
  int evaluated = 0;
  SHOAL_CHECK(++evaluated == 1);
  EXPECT_EQ(evaluated, 1);
}

TEST(ErrorCodeName, EveryCodeHasAnOwnName) {
  std::set<std::string_view> names;
  const int last = static_cast<int>(ErrorCode::kInternal);
  for (int code = 0; code <= last; ++code) names.insert(ErrorCodeName(static_cast<ErrorCode>(code)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(last) + 1);
  EXPECT_EQ(names.count("unknown"), 0U);
  EXPECT_EQ(ErrorCodeName(ErrorCode::kKvFull), "kv_full");
}

}  // namespace
}  // namespace shoal
