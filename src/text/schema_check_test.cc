// What is accepted, what is refused with the limit's name, and that what is accepted is converted in bounded time.
#include "text/schema_check.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/grammar_check.h"
#include "engine/test_vocabularies.h"
#include "text/chat.h"

namespace shoal {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

// Of the whole conversion. Under sanitizers and on busy machines all takes longer; without limits it is hours.
constexpr double kConversionMaxS = 30;

// "": accepted.
std::string Refusal(const json& schema) {
  const auto begin = steady_clock::now();
  const auto grammar = GrammarFromJsonSchema(schema.dump());
  const double took_s = std::chrono::duration<double>(steady_clock::now() - begin).count();
  EXPECT_LT(took_s, kConversionMaxS);
  if (took_s > 0.1) std::printf("%.2f s: %s\n", took_s, grammar.ok() ? "accepted" : grammar.error().message.c_str());
  if (grammar.ok()) return "";
  EXPECT_EQ(grammar.error().code, ErrorCode::kInvalidArgument);
  return grammar.error().message;
}

json Objects(std::size_t properties, const std::function<std::string(std::size_t)>& name,
             const json& of = {{"type", "string"}}) {
  json object = {{"type", "object"}, {"properties", json::object()}};
  for (std::size_t i = 0; i < properties; ++i) object["properties"][name(i)] = of;
  return object;
}

std::string Numbered(std::size_t i) { return "p" + std::to_string(i); }

TEST(SchemaCheck, AcceptsWhatPeopleWrite) {
  EXPECT_EQ(Refusal({{"type", "object"}}), "");
  EXPECT_EQ(Refusal(Objects(100, Numbered)), "");
  EXPECT_EQ(Refusal(Objects(40, [](std::size_t i) { return "имя_" + std::to_string(i); })), "");
  json all_required = Objects(256, Numbered);
  for (std::size_t i = 0; i < 256; ++i) all_required["required"].push_back(Numbered(i));
  EXPECT_EQ(Refusal(all_required), "");
  const json tree = json::parse(R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
      "left": {"$ref": "#/$defs/node"}, "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
      "kind": {"enum": ["a", "b", null]}, "code": {"type": ["string", "null"], "pattern": "^[A-Z]{2,3}(?:-[0-9]+)?$"}},
      "required": ["kind"], "additionalProperties": false}}})");
  EXPECT_EQ(Refusal(tree), "");
  EXPECT_EQ(Refusal(json::parse(R"({"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "integer"}}}],
      "$defs": {"a": {"type": "object", "properties": {"x": {"type": "number"}}}}})")),
            "");
  json cities = {{"enum", json::array()}};
  for (int i = 0; i < 5'000; ++i) cities["enum"].push_back("city " + std::to_string(i));
  EXPECT_EQ(Refusal(cities), "");
}

// One level of recursion for each character, on a thread with the stack of the API's.
TEST(SchemaCheck, NamesHaveALimit) {
  for (const json& additional : {json(true), json(false), json{{"type", "integer"}}}) {
    json schema = Objects(1, [](std::size_t) { return std::string(200'000, 'n'); });
    schema["additionalProperties"] = additional;
    EXPECT_NE(Refusal(schema).find("256 bytes"), std::string::npos);
  }
  json open = Objects(1, [](std::size_t) { return std::string(100, 'n'); });
  EXPECT_EQ(Refusal(open), "");
  open["additionalProperties"] = true;
  EXPECT_NE(Refusal(open).find("60 characters"), std::string::npos);
  open = Objects(1, [](std::size_t) { return std::string(60, 'n'); });
  open["additionalProperties"] = true;
  const auto grammar = GrammarFromJsonSchema(open.dump());
  ASSERT_TRUE(grammar.ok());
  EXPECT_TRUE(CheckGrammar(*grammar).ok());
}

TEST(SchemaCheck, LongReferencesAndPatternsAreRefused) {
  EXPECT_NE(Refusal({{"$ref", "#/" + std::string(500'000, '_')}}).find("$ref"), std::string::npos);
  EXPECT_NE(Refusal({{"type", "string"}, {"pattern", "^" + std::string(500'000, '_') + "$"}}).find("pattern"),
            std::string::npos);
  EXPECT_NE(Refusal({{"const", std::string(2'000'000, '\n')}}).find("bytes of schemas"), std::string::npos);
}

TEST(SchemaCheck, OptionalPropertiesHaveALimit) {
  EXPECT_NE(Refusal(Objects(2'000, Numbered)).find("256 properties of one object"), std::string::npos);
  // What is under that limit is bounded by what it costs.
  Refusal(Objects(256, Numbered));
  Refusal(Objects(256, [](std::size_t i) { return std::string(250, 'n') + Numbered(i); }));
  // Names that are all alike once their characters are replaced.
  const auto alike = [](std::size_t i) { return std::string(1 + i / 16, '_') + std::string(1 + i % 16, '.'); };
  Refusal(Objects(256, alike));
  Refusal(Objects(64, alike, Objects(64, alike)));
  Refusal(Objects(30, Numbered, Objects(90, Numbered)));
  json deep = Objects(100, Numbered);
  for (int i = 0; i < 40; ++i)
    deep = Objects(
        1, [](std::size_t) { return std::string(256, '_'); }, deep);
  Refusal(deep);
  json all_of = {{"allOf", json::array()}};
  for (int i = 0; i < 100; ++i) {
    all_of["allOf"].push_back(Objects(100, [i](std::size_t k) { return Numbered(k) + "-" + std::to_string(i); }));
  }
  EXPECT_NE(Refusal(all_of).find("256 properties"), std::string::npos);
}

TEST(SchemaCheck, WhatMultipliesIsCounted) {
  // A list of types is a copy of the schema for each.
  json types = {{"type", "string"}};
  for (int i = 0; i < 40; ++i) { types = {{"type", {"object", "object"}}, {"properties", {{"a", std::move(types)}}}}; }
  EXPECT_NE(Refusal(types), "");
  // One place has many names, and each is converted.
  json aliases = {{"anyOf", json::array()}, {"$defs", {{"a", json::array({Objects(60, Numbered)})}}}};
  for (int i = 1; i < 900; ++i) aliases["anyOf"].push_back({{"$ref", "#/$defs/a/" + std::string(i, '0')}});
  EXPECT_NE(Refusal(aliases), "");
}

TEST(SchemaCheck, ReferencesAreBounded) {
  EXPECT_NE(Refusal(json::parse(R"({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}})")), "");
  json chain = {{"$ref", "#/$defs/d0"}};
  for (int i = 0; i < 2'000; ++i) {
    chain["$defs"]["d" + std::to_string(i)] = {
        {"type", "object"}, {"properties", {{"x", {{"$ref", "#/$defs/d" + std::to_string(i + 1)}}}}}};
  }
  chain["$defs"]["d2000"] = {{"type", "null"}};
  EXPECT_NE(Refusal(chain).find("150 schemas inside one another"), std::string::npos);
  // 2^40 ways through the references of a tool's argument.
  json twice = {{"type", "object"}, {"properties", {{"x", {{"$ref", "#/$defs/d0"}}}}}};
  for (int i = 0; i < 40; ++i) {
    const json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
    twice["$defs"]["d" + std::to_string(i)] = {{"anyOf", {next, next}}};
  }
  twice["$defs"]["d40"] = {{"type", "integer"}};
  EXPECT_NE(Refusal(twice).find("too complex"), std::string::npos);
}

// llama-common prints such patterns to stderr, and people's words are not to be printed.
TEST(SchemaCheck, PatternsThatNoGrammarCanFollowAllowAnyStringInSilence) {
  for (const char* pattern : {"secret", "^secret", R"(^\d+secret$)", "^(?=secret).*$", "^a^secret$", "^(?<secret>a)$",
                              R"(^[\w]secret$)", "^secret{x}$", "^secret]$", "^secret{2$", R"(^\bsecret$)", "^secret}$",
                              "^secret{1,2,3}$", "^a{99999999999}$"}) {
    testing::internal::CaptureStderr();
    const auto grammar = GrammarFromJsonSchema(json{{"type", "string"}, {"pattern", pattern}}.dump());
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << pattern;
    ASSERT_TRUE(grammar.ok()) << pattern;
    EXPECT_EQ(grammar->find("secret"), std::string::npos) << pattern;
    EXPECT_EQ(*grammar, *GrammarFromJsonSchema(R"({"type": "string"})")) << pattern;
  }
  for (const char* pattern : {"^secret$", R"(^[a-z]\.secret\x41$)", "^(?:secret|b){2,3}$", "^(secret)*$", "^secret{2}$",
                              "^secret.{,4}$", R"(^\"secret[^\"]$)"}) {
    testing::internal::CaptureStderr();
    const auto grammar = GrammarFromJsonSchema(json{{"pattern", pattern}}.dump());
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << pattern;
    ASSERT_TRUE(grammar.ok()) << pattern << grammar.error().message;
    EXPECT_NE(grammar->find("secre"), std::string::npos) << pattern;
  }
  for (const char* pattern : {"^a)$", "^(a$", "^*$", "^[a$", "^a\\$"}) {
    EXPECT_NE(Refusal({{"type", "string"}, {"pattern", pattern}}), "") << pattern;
  }
}

TEST(SchemaCheck, ToolsAreCheckedToo) {
  const auto chat = ChatTemplate::Open(SmolLm2Vocabulary());
  ASSERT_TRUE(chat.ok());
  const auto rendered = [&](const json& parameters, std::size_t tools) {
    ChatRequest request;
    request.messages_json = R"([{"role": "user", "content": "Hi"}])";
    json list = json::array();
    for (std::size_t i = 0; i < tools; ++i) {
      list.push_back({{"type", "function"}, {"function", {{"name", "f"}, {"parameters", parameters}}}});
    }
    request.tools_json = list.dump();
    return (*chat)->Render(request).ok();
  };
  EXPECT_TRUE(rendered(Objects(60, Numbered), 100));
  EXPECT_FALSE(rendered(Objects(1, [](std::size_t) { return std::string(200'000, 'n'); }), 1));
  EXPECT_FALSE(rendered(Objects(250, Numbered), 100));  // the limits are of a request
}

}  // namespace
}  // namespace shoal
