// What is asked for after a loss, and when to stop asking.
#include "schedule/resumption.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

SampledToken Token(TokenId id, bool end = false) {
  SampledToken token;
  token.token = id;
  token.end = end;
  return token;
}

ResumptionOptions Options() { return {{7, 8, 9}, 0, 3, 100, 50}; }

TEST(ResumptionTest, AsksForWhatIsMissing) {
  Resumption generation(Options(), 0);
  generation.OnToken(Token(1));
  generation.OnLost(10);
  generation.OnToken(Token(2));
  EXPECT_EQ(generation.history(), (std::vector<TokenId>{7, 8, 9, 1, 2}));
  EXPECT_EQ(generation.emitted(), 2U);
  EXPECT_EQ(generation.tokens_max(), 1);
  EXPECT_FALSE(generation.ended());
  generation.OnToken(Token(3));
  EXPECT_EQ(generation.ended(), Resumption::End::kLength);
}

TEST(ResumptionTest, EndsAtAnEndTokenAndAtTheContextsEnd) {
  Resumption stopped(Options(), 0);
  stopped.OnToken(Token(1, true));
  EXPECT_EQ(stopped.ended(), Resumption::End::kStop);

  ResumptionOptions options = Options();
  options.tokens_max = 0;
  options.context_tokens_max = 5;
  Resumption full(options, 0);
  full.OnToken(Token(1));
  EXPECT_FALSE(full.ended());
  full.OnToken(Token(2));
  EXPECT_EQ(full.ended(), Resumption::End::kLength);
  EXPECT_EQ(full.tokens_max(), 0) << "still no limit";
}

TEST(ResumptionTest, AsksAgainForAsLongAsItMayHelp) {
  Resumption generation(Options(), 100);
  const Error gone{ErrorCode::kUnavailable, ""}, stale{ErrorCode::kStale, ""}, full{ErrorCode::kOverloaded, ""},
      wrong{ErrorCode::kInvalidArgument, ""};
  EXPECT_TRUE(generation.MayAskAgain(gone, true, 150));
  EXPECT_TRUE(generation.MayAskAgain(stale, true, 150));
  EXPECT_FALSE(generation.MayAskAgain(gone, true, 151)) << "too long without a head";
  EXPECT_FALSE(generation.MayAskAgain(gone, false, 100)) << "nobody can run it";
  EXPECT_FALSE(generation.MayAskAgain(wrong, true, 100)) << "every head would say so";
  EXPECT_FALSE(generation.MayAskAgain(full, true, 100)) << "its client hears that the queue is full";
  generation.OnLost(200);
  EXPECT_TRUE(generation.MayAskAgain(full, true, 250)) << "but not in the middle of its answer";
  EXPECT_FALSE(generation.MayAskAgain(full, true, 251));
}

}  // namespace
}  // namespace shoal
