// The sampler on the real vocabulary with made-up logits: draws, resume, grammars, bad input.
#include "engine/token_sampler.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/test_vocabularies.h"
#include "runtime/rng.h"
#include "sample/draw.h"

namespace shoal {
namespace {

// The logits of a make-believe model: a function of the position alone.
std::vector<float> Logits(Position position, std::size_t n = 0) {
  Rng rng(static_cast<std::uint64_t>(position) * 977 + 5);
  std::vector<float> logits(n == 0 ? static_cast<std::size_t>(SmolLm2Vocabulary()->size()) : n);
  for (float& x : logits) x = static_cast<float>((rng.Uniform() + rng.Uniform() + rng.Uniform() - 1.5) * 10);
  return logits;
}

std::unique_ptr<TokenSampler> Make(const SamplingParams& params, std::span<const TokenId> history = {},
                                   std::uint32_t emitted = 0) {
  auto sampler = TokenSampler::Make(SmolLm2Vocabulary(), params, history, emitted);
  EXPECT_TRUE(sampler.ok()) << sampler.error().message;
  return std::move(sampler).value();
}

// Samples until the end or `count` tokens, appending them to `history`.
void Generate(const SamplingParams& params, std::vector<TokenId>& history, std::uint32_t emitted, int count) {
  const auto sampler = Make(params, history, emitted);
  for (int i = 0; i < count; ++i) {
    const auto position = static_cast<Position>(history.size());
    const auto sampled = sampler->Sample(Logits(position), position);
    ASSERT_TRUE(sampled.ok()) << sampled.error().message;
    history.push_back(sampled->token);
    if (sampled->end) return;
  }
}

std::string Text(std::span<const TokenId> tokens) {
  std::string text;
  for (const TokenId token : tokens) text += SmolLm2Vocabulary()->Piece(token, false);
  return text;
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

constexpr const char* kPersonGrammar = R"(root ::= "{" ws "\"name\":" ws string "," ws "\"age\":" ws [1-9] [0-9]? "}"
string ::= "\"" [a-zA-Z ]{1,12} "\""
ws ::= " "?
)";

TEST(TokenSampler, GreedyTakesTheLargestLogit) {
  const auto sampler = Make(Greedy());
  for (Position p = 0; p < 5; ++p) {
    const auto logits = Logits(p);
    EXPECT_EQ(sampler->Sample(logits, p)->token, static_cast<TokenId>(ArgMax(logits)));
  }
}

TEST(TokenSampler, ResumingGivesTheSameTokens) {
  SamplingParams plain;
  plain.seed = 11;
  SamplingParams penalties = plain;
  penalties.repeat_penalty = 1.3F;
  penalties.frequency_penalty = 0.4F;
  penalties.presence_penalty = 0.2F;
  penalties.penalty_last_n = 8;
  penalties.top_k = 5;
  penalties.temperature = 1.5F;
  SamplingParams whole_context = penalties;
  whole_context.penalty_last_n = -1;
  whole_context.temperature = 0;
  SamplingParams grammar = plain;
  grammar.grammar = kPersonGrammar;
  SamplingParams greedy_grammar = grammar;
  greedy_grammar.temperature = 0;
  const std::vector<TokenId> prompt = *SmolLm2Vocabulary()->Tokenize("Once upon a time", false, false);
  for (const SamplingParams& params : {plain, penalties, whole_context, grammar, greedy_grammar}) {
    std::vector<TokenId> once = prompt;
    Generate(params, once, 0, 20);
    for (int stop = 1; stop < static_cast<int>(once.size() - prompt.size()); stop += 3) {
      std::vector<TokenId> twice = prompt;
      Generate(params, twice, 0, stop);
      Generate(params, twice, static_cast<std::uint32_t>(stop), 20 - stop);
      EXPECT_EQ(once, twice) << "stopped after " << stop;
    }
  }
}

TEST(TokenSampler, SeedAndPositionDecideTheDraw) {
  SamplingParams params;
  params.temperature = 1;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  const std::vector<float> logits(static_cast<std::size_t>(SmolLm2Vocabulary()->size()), 0.0F);
  std::set<TokenId> tokens;
  for (params.seed = 0; params.seed < 5; ++params.seed) {
    const auto a = Make(params), b = Make(params);
    for (Position p = 0; p < 10; ++p) {
      const TokenId token = a->Sample(logits, p)->token;
      EXPECT_EQ(b->Sample(logits, p)->token, token);
      tokens.insert(token);
    }
  }
  EXPECT_GT(tokens.size(), 45U);
}

TEST(TokenSampler, PenaltiesAreThoseOfTheFormula) {
  SamplingParams params = Greedy();
  params.repeat_penalty = 2;
  params.frequency_penalty = 0.5F;
  params.presence_penalty = 0.25F;
  std::vector<float> logits(static_cast<std::size_t>(SmolLm2Vocabulary()->size()), -50.0F);
  // Token 100 stands in the prompt twice: 8 / 2 - 2 * 0.5 - 0.25 = 2.75.
  const std::vector<TokenId> prompt = {100, 7, 100};
  logits[100] = 8;
  logits[200] = 2.74F;
  EXPECT_EQ(Make(params, prompt)->Sample(logits, 3)->token, 100);
  logits[200] = 2.76F;
  EXPECT_EQ(Make(params, prompt)->Sample(logits, 3)->token, 200);
  params.penalty_last_n = 1;  // sees one 100 only: 8 / 2 - 0.5 - 0.25 = 3.25
  EXPECT_EQ(Make(params, prompt)->Sample(logits, 3)->token, 100);
}

TEST(TokenSampler, BiasForbidsAndForces) {
  SamplingParams params = Greedy();
  std::vector<float> logits(static_cast<std::size_t>(SmolLm2Vocabulary()->size()), 0.0F);
  logits[300] = 5;
  logits[301] = 4;
  params.logit_bias = {{300, -std::numeric_limits<float>::infinity()}};
  EXPECT_EQ(Make(params)->Sample(logits, 0)->token, 301);
  params.logit_bias = {{302, 100}};
  EXPECT_EQ(Make(params)->Sample(logits, 0)->token, 302);
  params.logit_bias = {{302, std::numeric_limits<float>::max()}, {303, -std::numeric_limits<float>::max()}};
  params.temperature = 0.01F;
  EXPECT_EQ(Make(params)->Sample(logits, 0)->token, 302);
}

TEST(TokenSampler, EndTokensEndUnlessIgnored) {
  const TokenId eos = SmolLm2Vocabulary()->eos();
  std::vector<float> logits(static_cast<std::size_t>(SmolLm2Vocabulary()->size()), 0.0F);
  logits[static_cast<std::size_t>(eos)] = 50;
  logits[500] = 10;
  SamplingParams params = Greedy();
  const auto ended = Make(params)->Sample(logits, 0);
  EXPECT_EQ(ended->token, eos);
  EXPECT_TRUE(ended->end);
  params.ignore_end = true;
  const auto ignored = Make(params)->Sample(logits, 0);
  EXPECT_EQ(ignored->token, 500);
  EXPECT_FALSE(ignored->end);
}

TEST(TokenSampler, LogprobsAreThoseOfTheModelNotOfTheFilters) {
  SamplingParams params;
  params.temperature = 0.1F;
  params.top_k = 2;
  params.logprobs = 3;
  params.logit_bias = {{10, -5}};
  std::vector<float> logits(static_cast<std::size_t>(SmolLm2Vocabulary()->size()), -30.0F);
  logits[10] = 3;
  logits[11] = 2;
  logits[12] = 1;
  const auto sampled = *Make(params)->Sample(logits, 0);
  EXPECT_EQ(sampled.token, 11);
  const double sum = std::exp(3.0) + std::exp(2.0) + std::exp(1.0);
  EXPECT_NEAR(sampled.logprob, 2 - std::log(sum), 1e-4);
  ASSERT_EQ(sampled.alternatives.size(), 3U);
  EXPECT_EQ(sampled.alternatives[0].token, 10);
  EXPECT_NEAR(sampled.alternatives[0].logprob, 3 - std::log(sum), 1e-4);
  EXPECT_EQ(sampled.alternatives[2].token, 12);
}

TEST(TokenSampler, AGrammarIsFollowedWhateverTheLogits) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SamplingParams params;
    params.grammar = kPersonGrammar;
    params.seed = seed;
    params.temperature = seed == 0 ? 0 : 1;
    params.top_k = seed % 2 == 0 ? 40 : 0;
    std::vector<TokenId> tokens;
    Generate(params, tokens, 0, 60);
    const std::string text = Text(tokens);
    const auto json = nlohmann::json::parse(text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << text;
    EXPECT_TRUE(json["name"].is_string()) << text;
    EXPECT_GE(json["age"].get<int>(), 1) << text;
  }
}

TEST(TokenSampler, ACompleteGrammarEndsAtOnce) {
  SamplingParams params = Greedy();
  params.grammar = "root ::= \"yes\" | \"no\"";
  for (const bool ignore_end : {false, true}) {
    params.ignore_end = ignore_end;
    std::vector<TokenId> tokens;
    Generate(params, tokens, 0, 5);
    EXPECT_TRUE(Text(tokens) == "yes" || Text(tokens) == "no") << Text(tokens);
    EXPECT_FALSE(SmolLm2Vocabulary()->IsEndOfGeneration(tokens.back()));
  }
}

TEST(TokenSampler, ALazyGrammarBindsFromItsTrigger) {
  const auto word = *SmolLm2Vocabulary()->Tokenize("<call>", false, false);
  ASSERT_GT(word.size(), 1U);
  SamplingParams params = Greedy();
  params.grammar = "root ::= \"<call>\" [0-9]{3} \"!\"";
  params.grammar_lazy = true;
  params.grammar_triggers = {{-1, "<call>"}};
  std::vector<TokenId> history = *SmolLm2Vocabulary()->Tokenize("Anything may stand before. ", false, false);
  const auto free_tokens = static_cast<std::uint32_t>(history.size());
  history.insert(history.end(), word.begin(), word.end());
  const std::size_t before = history.size();
  Generate(params, history, static_cast<std::uint32_t>(before), 10);
  const std::string after = Text(std::span(history).subspan(before));
  ASSERT_EQ(after.size(), 4U) << after;
  EXPECT_EQ(after[3], '!');

  // Not triggered: the model's own choice stands.
  std::vector<TokenId> unbound(history.begin(), history.begin() + free_tokens);
  const auto logits = Logits(free_tokens);
  EXPECT_EQ(Make(params, unbound, free_tokens)->Sample(logits, free_tokens)->token,
            static_cast<TokenId>(ArgMax(logits)));

  params.grammar = "root ::= <|im_start|> \"go\"";
  params.grammar_triggers = {{SmolLm2Vocabulary()->Tokenize("<|im_start|>", false, true)->front(), ""}};
  std::vector<TokenId> by_token = {params.grammar_triggers[0].token};
  Generate(params, by_token, 1, 5);
  EXPECT_EQ(Text(by_token), "go");
}

TEST(TokenSampler, PrefillFeedsTheGrammarWhatThePromptHolds) {
  SamplingParams params = Greedy();
  params.grammar = "root ::= \"Answer: \" (\"yes\" | \"no\")";
  params.grammar_prefill = *SmolLm2Vocabulary()->Tokenize("Answer: ", false, false);
  std::vector<TokenId> tokens;
  Generate(params, tokens, 0, 5);
  EXPECT_TRUE(Text(tokens) == "yes" || Text(tokens) == "no") << Text(tokens);
}

void ExpectRefused(const SamplingParams& params, std::span<const TokenId> history = {}, std::uint32_t emitted = 0) {
  const auto sampler = TokenSampler::Make(SmolLm2Vocabulary(), params, history, emitted);
  ASSERT_FALSE(sampler.ok());
  EXPECT_EQ(sampler.error().code, ErrorCode::kInvalidArgument) << sampler.error().message;
  EXPECT_FALSE(sampler.error().message.empty());
}

TEST(TokenSampler, BadParametersAreRefused) {
  SamplingParams params;
  const std::vector<TokenId> outside = {SmolLm2Vocabulary()->size()}, negative = {-1}, fine = {5};
  ExpectRefused(params, outside);
  ExpectRefused(params, negative);
  ExpectRefused(params, fine, 2);
  params.logit_bias = {{SmolLm2Vocabulary()->size(), 1}};
  ExpectRefused(params);
  params.logit_bias = {{1, std::numeric_limits<float>::infinity()}};
  ExpectRefused(params);
  params = {};
  params.temperature = std::nanf("");
  ExpectRefused(params);
}

TEST(TokenSampler, BadGrammarsAreRefused) {
  for (const char* grammar : {"nothing", "root ::= other", "root ::= root \"a\" | \"b\"", "root ::= <no-such-token-x>",
                              "root ::= \"a\"{5000}", "root ::= <[99999999999999999999999]>"}) {
    SamplingParams params;
    params.grammar = grammar;
    ExpectRefused(params);
  }
  SamplingParams params;
  params.grammar = "root ::= \"a\"";
  params.grammar_lazy = true;
  params.grammar_triggers = {{-1, "((("}};
  ExpectRefused(params);

  params = {};
  params.grammar = "root ::= \"yes\"";
  const auto emitted = *SmolLm2Vocabulary()->Tokenize("no", false, false);
  ExpectRefused(params, emitted, static_cast<std::uint32_t>(emitted.size()));
  params.grammar_prefill = emitted;
  ExpectRefused(params);
  params.grammar_prefill = {SmolLm2Vocabulary()->size()};
  ExpectRefused(params);
}

TEST(TokenSampler, LogitsThatAreNotFiniteAreAnError) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const float temperature : {0.0F, 1.0F}) {
      SamplingParams params;
      params.temperature = temperature;
      auto logits = Logits(0);
      logits[77] = bad;
      const auto sampled = Make(params)->Sample(logits, 0);
      ASSERT_FALSE(sampled.ok());
      EXPECT_EQ(sampled.error().code, ErrorCode::kInternal);
    }
  }
  const std::vector<float> none(static_cast<std::size_t>(SmolLm2Vocabulary()->size()),
                                -std::numeric_limits<float>::infinity());
  for (const float temperature : {0.0F, 1.0F}) {
    SamplingParams params;
    params.temperature = temperature;
    const auto sampled = Make(params)->Sample(none, 0);
    ASSERT_FALSE(sampled.ok());
    EXPECT_EQ(sampled.error().code, ErrorCode::kInternal);
  }
}

}  // namespace
}  // namespace shoal
