// A recursive-descent reader that keeps of each rule only what the checks need: which elements its alternatives are
// made of, whether they may be empty, and how large they become once libllama has written repetitions out.
#include "engine/grammar_check.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace shoal {
namespace {

constexpr int kTerminal = -1;

// One item of a sequence, with its repetition.
struct Item {
  int rule = kTerminal;
  std::int64_t elements = 1;  // libllama's elements of one copy
  bool may_repeat_zero = false;
  std::int64_t copies_max = 1;
};

struct Rule {
  std::string name;
  bool defined = false;
  std::vector<std::vector<Item>> alternatives;
  bool nullable = false;
  // Depth-first search over "may begin with": 0 unseen, 1 open, 2 done.
  int visit = 0;
  int depth = 0;
  std::int64_t beginnings = 0;
};

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Status Read() {
    SkipSpace(true);
    while (!AtEnd()) {
      SHOAL_RETURN_IF_ERROR(ReadRule());
      SkipSpace(true);
    }
    const auto root = names_.find("root");
    if (root == names_.end() || !rules_[static_cast<std::size_t>(root->second)].defined) {
      return Fail("there is no rule 'root'");
    }
    for (const Rule& rule : rules_) {
      if (!rule.defined) return Wrong("rule '" + rule.name + "' is used but not defined");
    }
    return {};
  }

  std::vector<Rule>& rules() { return rules_; }

  static Error Wrong(const std::string& why) { return Error{ErrorCode::kInvalidArgument, "grammar: " + why}; }

 private:
  bool AtEnd() const { return pos_ >= text_.size(); }
  char Peek(std::size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }

  Error Fail(const std::string& why) const {
    const auto line =
        std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(std::min(pos_, text_.size())), '\n') + 1;
    return Wrong("line " + std::to_string(line) + ": " + why);
  }

  void SkipSpace(bool newlines) {
    while (!AtEnd()) {
      const char c = Peek();
      if (c == '#') {
        while (!AtEnd() && Peek() != '\n' && Peek() != '\r') ++pos_;
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        ++pos_;
      } else {
        return;
      }
    }
  }

  std::string_view ReadName() {
    const std::size_t start = pos_;
    while (IsNameChar(Peek())) ++pos_;
    return text_.substr(start, pos_ - start);
  }

  int RuleOf(std::string_view name) {
    const auto [it, added] = names_.emplace(std::string(name), static_cast<int>(rules_.size()));
    if (added) {
      rules_.emplace_back();
      rules_.back().name = it->first;
    }
    return it->second;
  }

  Status ReadRule() {
    const std::string_view name = ReadName();
    if (name.empty()) return Fail("a rule must begin with its name");
    SkipSpace(false);
    if (text_.substr(pos_, 3) != "::=") return Fail("'::=' is missing after '" + std::string(name) + "'");
    pos_ += 3;
    SkipSpace(true);
    const int rule = RuleOf(name);
    SHOAL_RETURN_IF_ERROR(ReadAlternatives(rule, 0));
    if (!AtEnd() && Peek() != '\n' && Peek() != '\r') return Fail(std::string("unexpected '") + Peek() + "'");
    return {};
  }

  // Alternatives of rule `rule` up to a closing parenthesis, the end of the line (outside groups) or of the text.
  Status ReadAlternatives(int rule, int nesting) {
    if (nesting > kGrammarNestingMax) return Fail("groups are nested too deeply");
    if (rules_.size() > static_cast<std::size_t>(kGrammarRulesMax)) return Fail("too many rules and groups");
    std::vector<std::vector<Item>> alternatives;
    while (true) {
      SHOAL_ASSIGN_OR_RETURN(alternatives.emplace_back(), ReadSequence(nesting));
      if (Peek() != '|') break;
      ++pos_;
      SkipSpace(true);
    }
    Rule& r = rules_[static_cast<std::size_t>(rule)];
    r.alternatives = std::move(alternatives);
    r.defined = true;
    return {};
  }

  Result<std::vector<Item>> ReadSequence(int nesting) {
    std::vector<Item> items;
    while (!AtEnd()) {
      const char c = Peek();
      if (c == '*' || c == '+' || c == '?' || c == '{') {
        if (items.empty()) return Fail(std::string("nothing before '") + c + "' to repeat");
        SHOAL_RETURN_IF_ERROR(ReadRepetition(items.back()));
      } else if (c == '"' || c == '[' || c == '.' || c == '<' || c == '!' || c == '(' || IsNameChar(c)) {
        items.emplace_back();
        SHOAL_RETURN_IF_ERROR(ReadItem(items.back(), nesting));
        // An empty literal or class adds no element: the previous item stays the last.
        if (items.back().elements == 0) items.pop_back();
      } else {
        break;
      }
      SkipSpace(nesting > 0);
    }
    return items;
  }

  Status ReadItem(Item& item, int nesting) {
    switch (Peek()) {
      case '"': return ReadChars(item, '"');
      case '[': return ReadChars(item, ']');
      case '.': ++pos_; return {};
      case '!':
      case '<': return ReadToken();
      case '(': {
        ++pos_;
        SkipSpace(true);
        item.rule = static_cast<int>(rules_.size());
        rules_.emplace_back();
        rules_.back().name = "a group";
        SHOAL_RETURN_IF_ERROR(ReadAlternatives(item.rule, nesting + 1));
        if (Peek() != ')') return Fail("')' is missing");
        ++pos_;
        return {};
      }
      default: item.rule = RuleOf(ReadName()); return {};
    }
  }

  // A literal or a character class, to its closing character.
  Status ReadChars(Item& item, char close) {
    ++pos_;
    item.elements = 0;
    if (close == ']' && Peek() == '^') ++pos_;
    while (Peek() != close) {
      if (AtEnd()) return Fail(close == '"' ? "a string without end" : "a character class without end");
      if (Peek() == '\\') {
        SHOAL_RETURN_IF_ERROR(ReadEscape());
      } else {
        SkipCharacter();
      }
      ++item.elements;
    }
    ++pos_;
    return {};
  }

  // As many bytes as the first one announces, like libllama, which does not look at the others.
  void SkipCharacter() {
    const auto lead = static_cast<unsigned char>(Peek());
    pos_ = std::min(text_.size(), pos_ + (lead < 0xC0 ? 1U : lead < 0xE0 ? 2U : lead < 0xF0 ? 3U : 4U));
  }

  Status ReadEscape() {
    const char kind = Peek(1);
    pos_ += 2;
    int digits = 0;
    switch (kind) {
      case 'x': digits = 2; break;
      case 'u': digits = 4; break;
      case 'U': digits = 8; break;
      case 't':
      case 'r':
      case 'n':
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-': return {};
      default: return Fail(std::string("unknown escape '\\") + kind + "'");
    }
    for (int i = 0; i < digits; ++i, ++pos_) {
      if (!IsHex(Peek())) return Fail("an escape needs " + std::to_string(digits) + " hexadecimal digits");
    }
    return {};
  }

  Status ReadToken() {
    if (Peek() == '!') ++pos_;
    const std::size_t end = text_.find('>', pos_);
    if (Peek() != '<' || end == std::string_view::npos) return Fail("a token is written <name> or <[id]>");
    pos_ = end + 1;
    return {};
  }

  Result<std::int64_t> ReadNumber() {
    if (!IsDigit(Peek())) return Fail("a number is missing in the repetition");
    std::int64_t n = 0;
    while (IsDigit(Peek())) {
      n = std::min<std::int64_t>(n * 10 + (Peek() - '0'), 1LL << 40);
      ++pos_;
    }
    return n;
  }

  Status ReadRepetition(Item& item) {
    std::int64_t least = 0;
    std::int64_t most = 1;  // kinds of copies libllama writes out; an open end is one
    bool open = false;
    const char kind = Peek();
    ++pos_;
    if (kind == '+') least = 1;
    open = kind == '*' || kind == '+';
    if (kind == '{') {
      SkipSpace(true);
      SHOAL_ASSIGN_OR_RETURN(least, ReadNumber());
      most = least;
      SkipSpace(true);
      if (Peek() == ',') {
        ++pos_;
        SkipSpace(true);
        open = !IsDigit(Peek());
        if (!open) { SHOAL_ASSIGN_OR_RETURN(most, ReadNumber()); }
        SkipSpace(true);
      }
      if (Peek() != '}') return Fail("'}' is missing");
      ++pos_;
      if (!open && most < least) return Fail("a repetition ends below its start");
      if (least > kGrammarRepetitionMax || most > kGrammarRepetitionMax) {
        return Fail("more than " + std::to_string(kGrammarRepetitionMax) + " repetitions");
      }
    }
    if (open) most = least + 1;
    elements_ += item.elements * most + 3 * (most - least);
    if (elements_ > kGrammarElementsMax) return Fail("its repetitions are too large when written out");
    item.elements = std::max<std::int64_t>(1, item.elements * std::max<std::int64_t>(least, 1));
    item.may_repeat_zero = item.may_repeat_zero || least == 0;
    item.copies_max = std::min<std::int64_t>(item.copies_max * std::max<std::int64_t>(most, 1), 1 << 20);
    return {};
  }

  std::string_view text_;
  std::size_t pos_ = 0;
  std::int64_t elements_ = 0;
  std::vector<Rule> rules_;
  std::map<std::string, int> names_;
};

bool Nullable(const Item& item, const std::vector<Rule>& rules) {
  return item.may_repeat_zero || (item.rule != kTerminal && rules[static_cast<std::size_t>(item.rule)].nullable);
}

// To a fixed point: a rule is nullable if all items of one alternative are.
void MarkNullable(std::vector<Rule>& rules) {
  bool changed = true;
  while (changed) {
    changed = false;
    for (Rule& rule : rules) {
      if (rule.nullable) continue;
      rule.nullable = std::any_of(rule.alternatives.begin(), rule.alternatives.end(), [&](const auto& items) {
        return std::all_of(items.begin(), items.end(), [&](const Item& item) { return Nullable(item, rules); });
      });
      changed = changed || rule.nullable;
    }
  }
}

// Counts in how many ways `rule` can begin, over the rules that can begin it. `chain` counts those above it.
Status CountBeginnings(std::vector<Rule>& rules, int index, int chain) {
  Rule& rule = rules[static_cast<std::size_t>(index)];
  if (rule.visit == 2 && chain + rule.depth <= kGrammarLeftDepthMax) return {};
  if (rule.visit == 1) return Reader::Wrong("rule '" + rule.name + "' can begin with itself (left recursion)");
  if (chain + rule.depth > kGrammarLeftDepthMax) {
    return Reader::Wrong("rule '" + rule.name + "' begins with too long a chain of other rules");
  }
  rule.visit = 1;
  rule.beginnings = 0;
  for (const auto& items : rule.alternatives) {
    rule.beginnings += 1;  // the alternative itself, empty or not
    for (const Item& item : items) {
      if (item.rule == kTerminal) {
        rule.beginnings += 1;
      } else {
        SHOAL_RETURN_IF_ERROR(CountBeginnings(rules, item.rule, chain + 1));
        const Rule& begins = rules[static_cast<std::size_t>(item.rule)];
        rule.depth = std::max(rule.depth, begins.depth + 1);
        rule.beginnings += begins.beginnings * (begins.nullable ? item.copies_max : 1);
      }
      if (rule.beginnings > kGrammarAlternativesMax) {
        return Reader::Wrong("rule '" + rule.name + "' can begin in more than " +
                             std::to_string(kGrammarAlternativesMax) + " ways");
      }
      if (!Nullable(item, rules)) break;
    }
  }
  rule.visit = 2;
  return {};
}

}  // namespace

Status CheckGrammar(std::string_view grammar) {
  if (grammar.find('\0') != std::string_view::npos) return Reader::Wrong("it contains a zero byte");
  Reader reader(grammar);
  SHOAL_RETURN_IF_ERROR(reader.Read());
  std::vector<Rule>& rules = reader.rules();
  MarkNullable(rules);
  for (std::size_t i = 0; i < rules.size(); ++i) {
    SHOAL_RETURN_IF_ERROR(CountBeginnings(rules, static_cast<int>(i), 0));
  }
  return {};
}

}  // namespace shoal
