// Every split of a text gives the same result: UTF-8 joining, stop strings, and both over a real vocabulary.
#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "engine/test_vocabularies.h"

namespace shoal {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

std::string JoinSplitAt(const std::string& text, std::size_t a, std::size_t b) {
  Utf8Joiner joiner;
  std::string out = joiner.Add(std::string_view(text).substr(0, a));
  out += joiner.Add(std::string_view(text).substr(a, b - a));
  out += joiner.Add(std::string_view(text).substr(b));
  return out + joiner.Finish();
}

TEST(Utf8Joiner, NoSplitTearsACharacter) {
  const std::string text = "aé日👩‍👩‍👧🇩🇪z\xF4\x8F\xBF\xBF";
  for (std::size_t a = 0; a <= text.size(); ++a) {
    for (std::size_t b = a; b <= text.size(); ++b) EXPECT_EQ(JoinSplitAt(text, a, b), text);
  }
  Utf8Joiner joiner;
  EXPECT_EQ(joiner.Add("\xF0\x9F\x91"), "");
  EXPECT_EQ(joiner.Add("\xA9!"), "👩!");
  EXPECT_EQ(joiner.Finish(), "");
}

TEST(Utf8Joiner, BrokenBytesBecomeReplacements) {
  const auto r = [](int n) {
    std::string s;
    for (int i = 0; i < n; ++i) s += kReplacement;
    return s;
  };
  const std::pair<std::string, std::string> cases[] = {
      {"\x80", r(1)},
      {"a\xFF"
       "b",
       "a" + r(1) + "b"},
      {"\xC0\xAF", r(2)},             // overlong
      {"\xE0\x80\x80", r(3)},         // overlong
      {"\xED\xA0\x80", r(3)},         // surrogate
      {"\xF4\x90\x80\x80", r(4)},     // above U+10FFFF
      {"\xF0\x9F\x91x", r(1) + "x"},  // one replacement for the longest good beginning
      {"\xE6\x97", r(1)},             // ends too early
      {"\xE6\xE6\x97\xA5", r(1) + "日"},
  };
  for (const auto& [bytes, text] : cases) {
    for (std::size_t a = 0; a <= bytes.size(); ++a) {
      for (std::size_t b = a; b <= bytes.size(); ++b) EXPECT_EQ(JoinSplitAt(bytes, a, b), text);
    }
  }
}

struct Found {
  std::string text, stop;
  bool stopped = false;
  bool operator==(const Found&) const = default;
};

Found FindSplitAt(const std::vector<std::string>& stops, const std::string& text, std::vector<std::size_t> cuts) {
  StopFinder finder(stops);
  Found found;
  cuts.push_back(text.size());
  std::size_t from = 0;
  for (const std::size_t to : cuts) {
    const auto step = finder.Add(std::string_view(text).substr(from, to - from));
    found.text += step.text;
    if (step.stopped) {
      found.stop = step.stop;
      found.stopped = true;
      EXPECT_EQ(finder.Add("more").text, "");
      EXPECT_TRUE(finder.Add("more").stopped);
      return found;
    }
    from = to;
  }
  found.text += finder.Finish();
  return found;
}

TEST(StopFinder, TheSameStopForEverySplit) {
  const struct {
    std::vector<std::string> stops;
    std::string text;
    Found want;
  } cases[] = {
      {{"\n\nUser:"}, "Hello\n\nUse\n\nUser: hi", {"Hello\n\nUse", "\n\nUser:", true}},
      {{"aab"}, "aaab", {"a", "aab", true}},
      {{"abcd", "bc"}, "xabcdx", {"xa", "bc", true}},  // the first to end
      {{"bc", "abc"}, "xabcx", {"x", "abc", true}},    // both end there: the longer
      {{"", "END"}, "no stop here EN", {"no stop here EN", "", false}},
      {{"日本"}, "今日は日本", {"今日は", "日本", true}},
      {{}, "anything", {"anything", "", false}},
      {{"x"}, "x", {"", "x", true}},
      {{"<|im_end|>", "<|"}, "a<|im_end|>", {"a", "<|", true}},
  };
  for (const auto& c : cases) {
    for (std::size_t a = 0; a <= c.text.size(); ++a) {
      for (std::size_t b = a; b <= c.text.size(); ++b) EXPECT_EQ(FindSplitAt(c.stops, c.text, {a, b}), c.want);
    }
    std::vector<std::size_t> every;
    for (std::size_t i = 1; i < c.text.size(); ++i) every.push_back(i);
    EXPECT_EQ(FindSplitAt(c.stops, c.text, every), c.want);
  }
}

TEST(StopFinder, HoldsBackNoMoreThanItMust) {
  StopFinder finder({"STOP"});
  EXPECT_EQ(finder.Add("abc S").text, "abc ");
  EXPECT_EQ(finder.Add("T").text, "");
  EXPECT_EQ(finder.Add("A").text, "STA");
  EXPECT_EQ(finder.Add("ST").text, "");
  EXPECT_EQ(finder.Finish(), "ST");
}

TEST(StopFinder, ManyStopsAtOnce) {
  std::vector<std::string> stops;
  for (int i = 0; i < 200; ++i) stops.push_back("stop" + std::to_string(1000 + i));
  EXPECT_EQ(FindSplitAt(stops, "a stop10 stop1150 b", {9, 14}), (Found{"a stop10 ", "stop1150", true}));
}

TEST(Detokenizer, EmojiAndCjkComeOutWhole) {
  for (const auto& vocabulary : {SmolLm2Vocabulary(), Gemma3Vocabulary()}) {
    const std::string text = "Hi 👩‍👩‍👧‍👦🦄 日本語 𝔘𝔫𝔦";
    Detokenizer detokenizer(vocabulary, {}, false);
    std::string out;
    const auto tokens = *vocabulary->Tokenize(text, false, false);
    for (const TokenId token : tokens) {
      const std::string piece = detokenizer.Add(token).text;
      EXPECT_EQ(piece.find(kReplacement), std::string::npos);
      out += piece;
    }
    out += detokenizer.Finish();
    EXPECT_EQ(out, text);
  }
}

TEST(Detokenizer, StopsAcrossTokensAndKeepsControlTokensHidden) {
  const auto vocabulary = SmolLm2Vocabulary();
  const auto tokens = *vocabulary->Tokenize("<|im_start|>One two three four", false, true);
  for (const char* stop : {"three", "o th", "two three", " "}) {
    Detokenizer detokenizer(vocabulary, {stop}, false);
    std::string out;
    bool stopped = false;
    for (const TokenId token : tokens) {
      const auto step = detokenizer.Add(token);
      out += step.text;
      stopped = step.stopped;
      if (stopped) break;
    }
    EXPECT_TRUE(stopped) << stop;
    EXPECT_EQ(out, std::string("One two three four").substr(0, std::string("One two three four").find(stop)));
  }
  Detokenizer special(vocabulary, {}, true), preserved(vocabulary, {}, false, {tokens[0]});
  EXPECT_EQ(special.Add(tokens[0]).text, "<|im_start|>");
  EXPECT_EQ(preserved.Add(tokens[0]).text, "<|im_start|>");
}

TEST(Detokenizer, ATextThatEndsInsideACharacterIsClosed) {
  const auto vocabulary = SmolLm2Vocabulary();
  auto tokens = *vocabulary->Tokenize("🦄", false, false);
  ASSERT_GT(tokens.size(), 1U);
  tokens.pop_back();
  Detokenizer detokenizer(vocabulary, {"never"}, false);
  std::string out;
  for (const TokenId token : tokens) out += detokenizer.Add(token).text;
  EXPECT_EQ(out, "");
  EXPECT_EQ(detokenizer.Finish(), kReplacement);
}

}  // namespace
}  // namespace shoal
