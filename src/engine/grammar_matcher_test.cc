// The tokens that we allow are those that libllama allows, as long as it can say so; and ambiguity ends with an error.
#include "engine/grammar_matcher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "engine/grammar_check.h"
#include "engine/test_vocabularies.h"
#include "llama.h"

namespace shoal {
namespace {

using std::chrono::steady_clock;

constexpr double kEndsWithinS = 60;  // a few seconds, more under sanitizers; without limits: never

std::unique_ptr<GrammarMatcher> Matcher(const std::shared_ptr<const Vocabulary>& vocabulary,
                                        const std::string& grammar) {
  auto matcher = GrammarMatcher::Make(vocabulary, grammar);
  EXPECT_TRUE(matcher.ok()) << grammar << ": " << matcher.error().message;
  return matcher.ok() ? std::move(matcher).value() : nullptr;
}

std::set<TokenId> Allowed(GrammarMatcher& matcher) {
  std::set<TokenId> allowed;
  const Status status =
      matcher.ForEachAllowed([](TokenId) { return true; }, [&](TokenId token) { return allowed.insert(token).second; });
  EXPECT_TRUE(status.ok()) << status.error().message;
  return allowed;
}

std::set<TokenId> AllowedByLibllama(llama_sampler* sampler, const Vocabulary& vocabulary) {
  std::vector<llama_token_data> all;
  all.reserve(static_cast<std::size_t>(vocabulary.size()));
  for (TokenId token = 0; token < vocabulary.size(); ++token) all.push_back({token, 0, 0});
  llama_token_data_array array{all.data(), all.size(), -1, false};
  llama_sampler_apply(sampler, &array);
  std::set<TokenId> allowed;
  for (const llama_token_data& entry : all) {
    if (!std::isinf(entry.logit)) allowed.insert(entry.id);
  }
  return allowed;
}

const char* const kGrammars[] = {
    "root ::= \"yes\" | \"no\" | \"yes, but\"",
    "root ::= (\"a\" | [b-d] [^x\\]-] | .)* \"\\x41\\u00e9\\n\"",
    "root ::= [^a-zA-Z0-9 ]{1,6} \"日本\"* [あ-んア-ン]+ .",
    "root ::= value\nvalue ::= \"[\" (value (\",\" value)*)? \"]\" | [0-9]+ | \"\\\"\" [^\"]* \"\\\"\"",
    "root ::= ws \"x\" root?\nws ::= | \" \" ws | \"\\n\"",
    "root ::= <|im_start|> !<|im_end|> [a-z]*",
    "root ::= list{2,4} \"!\"\nlist ::= (\"- \" [^\\n]{0,20} \"\\n\"){1,3}",
    "root ::= [\\U0001F600-\\U0001F64F]{1,3} [\\x80-\\U0010FFFF]*",
    "root ::= \"a\" root \"b\" | \"c\"",
    "root ::= (\"x\" | \"xy\" | \"xyz\")* \"end\"",
    "root ::= \"\" | \"a\"? \"b\"? \"c\"?",
};

class GrammarMatcherTest : public testing::TestWithParam<const char*> {};

TEST_P(GrammarMatcherTest, AllowsWhatLibllamaAllows) {
  for (const bool gemma : {false, true}) {
    const auto vocabulary = gemma ? Gemma3Vocabulary() : SmolLm2Vocabulary();
    if (gemma && std::string(GetParam()).find("<|im") != std::string::npos) continue;
    const auto matcher = Matcher(vocabulary, GetParam());
    ASSERT_NE(matcher, nullptr);
    llama_sampler* sampler = llama_sampler_init_grammar(vocabulary->llama_vocabulary(), GetParam(), "root");
    ASSERT_NE(sampler, nullptr);
    std::mt19937_64 random(7);
    for (int step = 0; step < (gemma ? 4 : 12); ++step) {
      const std::set<TokenId> allowed = Allowed(*matcher);
      ASSERT_EQ(allowed, AllowedByLibllama(sampler, *vocabulary)) << step;
      for (int i = 0; i < 20; ++i) {
        const auto token = static_cast<TokenId>(random() % static_cast<std::uint64_t>(vocabulary->size()));
        EXPECT_EQ(*matcher->Allows(token), allowed.count(token) != 0);
      }
      std::vector<TokenId> choice;
      for (const TokenId token : allowed) {
        if (!vocabulary->IsEndOfGeneration(token)) choice.push_back(token);
      }
      if (choice.empty()) break;
      const TokenId token = choice[random() % choice.size()];
      ASSERT_TRUE(*matcher->Allows(token));
      ASSERT_TRUE(matcher->Accept(token, vocabulary->Piece(token, true)).ok());
      llama_sampler_accept(sampler, token);
    }
    llama_sampler_free(sampler);
  }
}

INSTANTIATE_TEST_SUITE_P(Grammars, GrammarMatcherTest, testing::ValuesIn(kGrammars));

// Each "a" doubles the ways to read the text. libllama follows all of them, with no limit.
TEST(GrammarMatcher, AmbiguityThatDoublesEndsWithAnError) {
  const auto begin = steady_clock::now();
  for (const char* grammar :
       {"root ::= \"a\" root \"b\" | \"a\" root \"c\"", "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"x\"",
        "root ::= [a-z] root \"1\" | . root \"2\" | [^0] root \"3\"",
        "root ::= (\" \" root \"b\") | (\" \" root \"c\")"}) {
    ASSERT_TRUE(CheckGrammar(grammar).ok());
    const auto matcher = Matcher(SmolLm2Vocabulary(), grammar);
    const std::string text = std::string(grammar).find("\" \"") == std::string::npos ? "a" : " ";
    const TokenId token = SmolLm2Vocabulary()->Tokenize(text, false, false)->front();
    Status status;
    int accepted = 0;
    for (; accepted < 100 && status.ok(); ++accepted) {
      status = matcher->ForEachAllowed([](TokenId) { return true; }, [](TokenId) { return true; });
      if (status.ok()) status = matcher->Accept(token, text);
    }
    ASSERT_FALSE(status.ok()) << grammar;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find("ambiguous"), std::string::npos);
    EXPECT_NE(status.error().message.find(std::to_string(kGrammarStacksMax)), std::string::npos);
  }
  // One token of many characters.
  const auto matcher = Matcher(SmolLm2Vocabulary(), "root ::= \"a\" root \"b\" | \"a\" root \"c\"");
  EXPECT_FALSE(matcher->Accept(0, std::string(1000, 'a')).ok());
  EXPECT_LT(std::chrono::duration<double>(steady_clock::now() - begin).count(), kEndsWithinS);
}

TEST(GrammarMatcher, LongTextsOfUsualGrammarsStayCheap) {
  const auto begin = steady_clock::now();
  const auto nested = Matcher(SmolLm2Vocabulary(), "root ::= \"[\" root? \"]\"");
  for (int i = 0; i < 5'000; ++i) ASSERT_TRUE(nested->Accept(0, "[[").ok());
  for (int i = 0; i < 9'999; ++i) ASSERT_TRUE(nested->Accept(0, "]").ok());
  EXPECT_FALSE(*nested->Allows(SmolLm2Vocabulary()->eos()));
  ASSERT_TRUE(nested->Accept(0, "]").ok());
  EXPECT_TRUE(*nested->Allows(SmolLm2Vocabulary()->eos()));
  std::string cities = "root ::= \"[\" city (\", \" city)* \"]\"\ncity ::= \"\\\"\" (";
  for (int i = 0; i < 5'000; ++i) cities += std::string(i == 0 ? "" : " | ") + "\"city " + std::to_string(i) + "\"";
  const auto names = Matcher(SmolLm2Vocabulary(), cities + ") \"\\\"\"");
  for (const char* piece : {"[\"", "city", " 4", "99", "9\", ", "\"ci"}) {
    EXPECT_FALSE(Allowed(*names).empty());
    EXPECT_TRUE(names->Accept(0, piece).ok());
  }
  EXPECT_LT(std::chrono::duration<double>(steady_clock::now() - begin).count(), kEndsWithinS);
}

// libllama allows "gone" here and then cannot take it: the token after "go" has to be a token of its own.
TEST(GrammarMatcher, ATokenBeginsWhereTheOneBeforeEnds) {
  const auto matcher = Matcher(SmolLm2Vocabulary(), "root ::= \"go\" !<|im_end|>");
  std::set<std::string> pieces;
  for (const TokenId token : Allowed(*matcher)) pieces.insert(SmolLm2Vocabulary()->Piece(token, true));
  EXPECT_EQ(pieces, (std::set<std::string>{"g", "go"}));
}

TEST(GrammarMatcher, WhatDoesNotFollowIsRefused) {
  const auto matcher = Matcher(SmolLm2Vocabulary(), "root ::= \"yes\"");
  EXPECT_TRUE(matcher->Accept(0, "ye").ok());
  EXPECT_FALSE(matcher->Accept(0, "x").ok());
  for (const char* grammar : {"root ::= <no-such-token-x>", "root ::= ((\"a\"?){1,100}){1,1000}", "main ::= \"a\""}) {
    testing::internal::CaptureStderr();
    EXPECT_FALSE(GrammarMatcher::Make(SmolLm2Vocabulary(), grammar).ok()) << grammar;
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");  // what people write is not printed
  }
}

}  // namespace
}  // namespace shoal
