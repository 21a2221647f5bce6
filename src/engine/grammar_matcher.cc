// Stacks are numbers of nodes (top element, number of the stack below it), each pair once, so that equal stacks are
// equal numbers. A reading of the text is a set of stacks, each with a character or a token on top.
#include "engine/grammar_matcher.h"

#include <algorithm>
#include <exception>
#include <unordered_map>
#include <utility>
#include <vector>

// libllama's own header of its grammars: the parser and the rules it makes.
#include "../src/llama-grammar.h"
#include "base/check.h"
#include "engine/grammar_check.h"
#include "engine/llama_guard.h"
#include "engine/llama_log.h"

namespace shoal {
namespace {

using Element = llama_grammar_element;
using StackId = std::int32_t;

constexpr StackId kEmpty = -1;                // the text may end
constexpr std::size_t kNodesMax = 1U << 19;   // of all stacks of one call
constexpr std::size_t kNodesKept = 1U << 12;  // below that no node is forgotten
constexpr std::size_t kIndexFrom = 16;        // stacks, from which on characters are looked up

Error Invalid(const std::string& why) { return Error{ErrorCode::kInvalidArgument, "grammar: " + why}; }

bool IsEnd(const Element* element) { return element->type == LLAMA_GRETYPE_END || element->type == LLAMA_GRETYPE_ALT; }
bool IsToken(const Element* element) {
  return element->type == LLAMA_GRETYPE_TOKEN || element->type == LLAMA_GRETYPE_TOKEN_NOT;
}
bool IsExactCharacter(const Element* element) {
  return element->type == LLAMA_GRETYPE_CHAR && element[1].type != LLAMA_GRETYPE_CHAR_RNG_UPPER &&
         element[1].type != LLAMA_GRETYPE_CHAR_ALT;
}

// Past the characters that begin at `element`.
const Element* After(const Element* element) {
  do {
    element += element[1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER ? 2 : 1;
  } while (element->type == LLAMA_GRETYPE_CHAR_ALT);
  return element;
}

// Whether a character from `low` to `high` may be one of those at `element`; of [^...]: whether none of them is
// excluded.
bool Matches(const Element* element, std::uint32_t low, std::uint32_t high) {
  if (element->type == LLAMA_GRETYPE_CHAR_ANY) return true;
  const bool positive = element->type == LLAMA_GRETYPE_CHAR;
  do {
    const bool range = element[1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER;
    if (element->value <= high && low <= (range ? element[1].value : element->value)) return positive;
    element += range ? 2 : 1;
  } while (element->type == LLAMA_GRETYPE_CHAR_ALT);
  return !positive;
}

// A character of which only the first bytes are known. `missing` -1: what came was not UTF-8.
struct Partial {
  std::uint32_t value = 0;
  int missing = 0;
};

bool MatchesPartial(const Element* element, const Partial& partial) {
  if (IsToken(element) || partial.missing < 0 || (partial.missing == 1 && partial.value < 2)) return false;
  std::uint32_t low = partial.value << (partial.missing * 6);
  const std::uint32_t high = low | ((1U << (partial.missing * 6)) - 1);
  if (low == 0 && partial.missing == 2) low = 1U << 11;  // shorter forms have fewer bytes
  if (low == 0 && partial.missing == 3) low = 1U << 16;
  return Matches(element, low, high);
}

// As libllama reads tokens: up to a zero byte, continuation bytes as they come, nothing of what is not UTF-8.
Partial Decode(const std::string& piece, Partial partial, std::vector<std::uint32_t>& characters) {
  characters.clear();
  bool inside = partial.missing > 0;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    if (partial.missing > 0) {
      if (inside && (byte >> 6) != 2) return {0, -1};
      partial.value = (partial.value << 6) + (byte & 0x3FU);
      --partial.missing;
    } else {
      if (byte >= 0x80 && byte < 0xC0) {
        characters.clear();
        return {0, -1};
      }
      partial.missing = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
      partial.value = byte & ((1U << (7 - partial.missing)) - 1);
    }
    if (partial.missing > 0) continue;
    inside = false;
    characters.push_back(partial.value);
  }
  return partial;
}

struct Node {
  const Element* top;
  StackId below;
  bool operator==(const Node& other) const { return top == other.top && below == other.below; }
};
struct NodeHash {
  std::size_t operator()(const Node& node) const {
    const auto top = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(node.top));
    return (top ^ (static_cast<std::uint64_t>(static_cast<std::uint32_t>(node.below)) << 32)) * 0x9E3779B97F4A7C15ULL >>
           16;
  }
};

// One set of stacks. Large ones have those with one certain character on top apart, by that character.
struct Reading {
  std::vector<StackId> stacks;
  bool indexed = false;
  std::vector<std::pair<std::uint32_t, StackId>> by_character;  // ascending
  std::vector<StackId> others;

  bool may_end() const { return std::find(stacks.begin(), stacks.end(), kEmpty) != stacks.end(); }
};

}  // namespace

struct GrammarMatcher::State {
  std::shared_ptr<const Vocabulary> vocabulary;
  llama_grammar_rules rules;
  std::vector<Node> nodes;
  std::unordered_map<Node, StackId, NodeHash> ids;
  Reading now;
  Partial partial;

  std::int64_t steps = 0;           // of this call
  bool over = false;                // a limit was passed
  std::vector<std::uint32_t> seen;  // [nodes + 1]: in which closure a stack was met last
  std::uint32_t closure = 0;
  std::vector<StackId> todo;

  // While tokens are asked about: readings after 0, 1, ... characters of the last one.
  std::vector<Reading> path;
  std::size_t nodes_kept = 0;  // of those of `now`
  std::vector<std::uint32_t> characters, path_characters;

  Status Parse(const std::string& grammar);
  void Start();

  const Element* Top(StackId stack) const { return nodes[static_cast<std::size_t>(stack)].top; }
  StackId Push(const Element* top, StackId below);
  // The stack on `below` that goes on at `element`.
  StackId GoOn(const Element* element, StackId below) { return IsEnd(element) ? below : Push(element, below); }
  void BeginClosure();
  void Close(StackId stack, Reading& into);
  void Index(Reading& reading) const;
  void StepOne(StackId stack, Reading& into);
  void Step(Reading& from, std::uint32_t character, Reading& into);
  void BeginAsking();
  Status EndAsking();
  void Forget(std::size_t kept);
  void Compact();

  bool TokenMatches(StackId stack, TokenId token) const {
    if (stack == kEmpty || !IsToken(Top(stack))) return false;
    return (Top(stack)->value == static_cast<std::uint32_t>(token)) == (Top(stack)->type == LLAMA_GRETYPE_TOKEN);
  }
  bool PartialFits(const Reading& reading, const Partial& rest);
  bool Ask(TokenId token, const std::string& piece);
  Status Limits() const {
    if (!over) return {};
    return Invalid("too ambiguous: after this text there are more ways to go on than can be followed (" +
                   std::to_string(kGrammarStacksMax) + ")");
  }
};

// Not parser.parse(), which prints what it cannot parse.
Status GrammarMatcher::State::Parse(const std::string& grammar) {
  llama_grammar_parser parser(vocabulary->llama_vocabulary());
  try {
    LlamaGuard guard;
    const LlamaErrors errors;
    const char* pos = grammar.c_str();
    while (*pos == ' ' || *pos == '\t' || *pos == '\r' || *pos == '\n' || *pos == '#') {
      if (*pos == '#') {
        while (*pos != '\0' && *pos != '\r' && *pos != '\n') ++pos;
      } else {
        ++pos;
      }
    }
    while (*pos != '\0') pos = parser.parse_rule(pos);
  } catch (const std::exception& e) { return Invalid(e.what()); }
  const auto root = parser.symbol_ids.find("root");
  if (root == parser.symbol_ids.end()) return Invalid("there is no rule 'root'");
  rules = std::move(parser.rules);
  for (const llama_grammar_rule& rule : rules) {
    if (rule.empty()) return Invalid("a rule is used but not defined");
    for (const Element& element : rule) {
      if (element.type == LLAMA_GRETYPE_RULE_REF && element.value >= rules.size()) {
        return Invalid("a rule is used but not defined");
      }
    }
  }
  // A rule of its own refers to the root, so that the start is a closure like all others.
  rules.push_back({{LLAMA_GRETYPE_RULE_REF, root->second}, {LLAMA_GRETYPE_END, 0}});
  return {};
}

void GrammarMatcher::State::Start() {
  const StackId start = Push(rules.back().data(), kEmpty);
  BeginClosure();
  Close(start, now);
}

StackId GrammarMatcher::State::Push(const Element* top, StackId below) {
  const auto [it, added] = ids.try_emplace(Node{top, below}, static_cast<StackId>(nodes.size()));
  if (added) {
    nodes.push_back({top, below});
    seen.push_back(0);
    if (nodes.size() > kNodesMax) over = true;
  }
  return it->second;
}

void GrammarMatcher::State::BeginClosure() {
  if (++closure != 0) return;
  std::fill(seen.begin(), seen.end(), 0);
  closure = 1;
}

// Replaces rules on top by what they begin with, in all ways.
void GrammarMatcher::State::Close(StackId stack, Reading& into) {
  todo.assign(1, stack);
  while (!todo.empty() && !over) {
    const StackId at = todo.back();
    todo.pop_back();
    if (++steps > kGrammarStepsMax) over = true;
    std::uint32_t& met = seen[static_cast<std::size_t>(at) + 1];
    if (met == closure) continue;
    met = closure;
    if (at == kEmpty || Top(at)->type != LLAMA_GRETYPE_RULE_REF) {
      into.stacks.push_back(at);
      if (into.stacks.size() > kGrammarStacksMax) over = true;
      continue;
    }
    const Node node = nodes[static_cast<std::size_t>(at)];
    const StackId below = GoOn(node.top + 1, node.below);
    for (const Element* begin = rules[node.top->value].data();; ++begin) {
      todo.push_back(GoOn(begin, below));
      while (!IsEnd(begin)) ++begin, ++steps;
      if (begin->type == LLAMA_GRETYPE_END) break;
    }
  }
}

void GrammarMatcher::State::Index(Reading& reading) const {
  reading.indexed = true;
  for (const StackId stack : reading.stacks) {
    if (stack == kEmpty || IsToken(Top(stack))) continue;
    if (IsExactCharacter(Top(stack))) {
      reading.by_character.emplace_back(Top(stack)->value, stack);
    } else {
      reading.others.push_back(stack);
    }
  }
  std::sort(reading.by_character.begin(), reading.by_character.end());
}

void GrammarMatcher::State::StepOne(StackId stack, Reading& into) {
  const Node node = nodes[static_cast<std::size_t>(stack)];
  Close(GoOn(After(node.top), node.below), into);
}

void GrammarMatcher::State::Step(Reading& from, std::uint32_t character, Reading& into) {
  into.stacks.clear();
  into.by_character.clear();
  into.others.clear();
  into.indexed = false;
  BeginClosure();
  if (!from.indexed && from.stacks.size() >= kIndexFrom) Index(from);
  for (const StackId stack : from.indexed ? from.others : from.stacks) {
    if (over) return;
    ++steps;
    if (stack == kEmpty || IsToken(Top(stack))) continue;
    steps += After(Top(stack)) - Top(stack);
    if (Matches(Top(stack), character, character)) StepOne(stack, into);
  }
  if (!from.indexed) return;
  auto it = std::lower_bound(from.by_character.begin(), from.by_character.end(), std::make_pair(character, kEmpty));
  for (; it != from.by_character.end() && it->first == character && !over; ++it) StepOne(it->second, into);
}

void GrammarMatcher::State::Forget(std::size_t kept) {
  for (std::size_t i = kept; i < nodes.size(); ++i) ids.erase(nodes[i]);
  nodes.resize(std::min(nodes.size(), kept));
  seen.resize(nodes.size() + 1);
}

// Keeps the nodes of `now` only, once others are more than half.
void GrammarMatcher::State::Compact() {
  if (nodes.size() < kNodesKept) return;
  std::vector<StackId> renamed(nodes.size(), kEmpty);
  std::vector<bool> used(nodes.size(), false);
  for (const StackId stack : now.stacks) {
    for (StackId at = stack; at != kEmpty && !used[static_cast<std::size_t>(at)];
         at = nodes[static_cast<std::size_t>(at)].below) {
      used[static_cast<std::size_t>(at)] = true;
    }
  }
  if (static_cast<std::size_t>(std::count(used.begin(), used.end(), true)) * 2 > nodes.size()) return;
  std::vector<Node> kept;
  ids.clear();
  for (std::size_t i = 0; i < nodes.size(); ++i) {  // a node's below is older than the node
    if (!used[i]) continue;
    const StackId below = nodes[i].below;
    kept.push_back({nodes[i].top, below == kEmpty ? kEmpty : renamed[static_cast<std::size_t>(below)]});
    renamed[i] = static_cast<StackId>(kept.size() - 1);
    ids.emplace(kept.back(), renamed[i]);
  }
  nodes = std::move(kept);
  seen.assign(nodes.size() + 1, 0);
  closure = 0;
  for (StackId& stack : now.stacks) stack = stack == kEmpty ? kEmpty : renamed[static_cast<std::size_t>(stack)];
  now.indexed = false;
  now.by_character.clear();
  now.others.clear();
}

void GrammarMatcher::State::BeginAsking() {
  steps = 0;
  nodes_kept = nodes.size();
  path.assign(1, now);
  path_characters.clear();
}

Status GrammarMatcher::State::EndAsking() {
  Forget(nodes_kept);
  return Limits();
}

bool GrammarMatcher::State::PartialFits(const Reading& reading, const Partial& rest) {
  if (rest.missing == 0) return !reading.stacks.empty();
  steps += static_cast<std::int64_t>(reading.stacks.size());
  return std::any_of(reading.stacks.begin(), reading.stacks.end(),
                     [&](StackId stack) { return stack != kEmpty && MatchesPartial(Top(stack), rest); });
}

// Of a token whose text is `piece`; `path` holds what the token asked about before has in common with it.
bool GrammarMatcher::State::Ask(TokenId token, const std::string& piece) {
  if (piece.empty() || piece[0] == '\0') return false;
  const Partial rest = Decode(piece, partial, characters);
  if (rest.missing < 0) return false;
  for (const StackId stack : path[0].stacks) {
    // Not a lone part of a character, as in libllama: the rest of it would have nowhere to go.
    if ((rest.missing == 0 || !characters.empty()) && TokenMatches(stack, token)) return true;
  }
  std::size_t depth = 0;
  while (depth < characters.size() && depth < path_characters.size() && characters[depth] == path_characters[depth]) {
    ++depth;
  }
  path_characters.resize(depth);
  if (depth == 0) Forget(nodes_kept);
  if (path.size() < characters.size() + 1) path.resize(characters.size() + 1);
  while (depth < characters.size() && !path[depth].stacks.empty() && !over) {
    Step(path[depth], characters[depth], path[depth + 1]);
    path_characters.push_back(characters[depth++]);
  }
  return depth == characters.size() && PartialFits(path[depth], rest);
}

GrammarMatcher::GrammarMatcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
GrammarMatcher::~GrammarMatcher() = default;

Result<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Make(std::shared_ptr<const Vocabulary> vocabulary,
                                                             const std::string& grammar) {
  SHOAL_CHECK(vocabulary != nullptr);
  SHOAL_RETURN_IF_ERROR(CheckGrammar(grammar));
  auto state = std::make_unique<State>();
  state->vocabulary = std::move(vocabulary);
  state->seen.assign(1, 0);
  SHOAL_RETURN_IF_ERROR(state->Parse(grammar));
  state->Start();
  SHOAL_RETURN_IF_ERROR(state->Limits());
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(std::move(state)));
}

Status GrammarMatcher::Accept(TokenId token, const std::string& piece) {
  State& s = *state_;
  s.steps = 0;
  const Partial rest = Decode(piece, s.partial, s.characters);
  Reading after = s.now;
  Reading next;
  for (const std::uint32_t character : s.characters) {
    s.Step(after, character, next);
    std::swap(after, next);
  }
  if (s.characters.empty()) {  // a part of a character; a token on top does not wait for the rest
    const auto token_on_top = [&](StackId stack) { return stack == kEmpty || IsToken(s.Top(stack)); };
    after.stacks.erase(std::remove_if(after.stacks.begin(), after.stacks.end(), token_on_top), after.stacks.end());
    after.indexed = false;
  }
  s.BeginClosure();
  for (const StackId stack : after.stacks) s.seen[static_cast<std::size_t>(stack) + 1] = s.closure;
  for (const StackId stack : s.now.stacks) {
    if (!s.TokenMatches(stack, token)) continue;
    const Node node = s.nodes[static_cast<std::size_t>(stack)];
    s.Close(s.GoOn(node.top + 1, node.below), after);
  }
  SHOAL_RETURN_IF_ERROR(s.Limits());
  if (after.stacks.empty()) return Invalid("token " + std::to_string(token) + " does not follow it");
  s.now = Reading{std::move(after.stacks), false, {}, {}};
  s.partial = rest;
  s.Compact();
  return {};
}

Result<bool> GrammarMatcher::Allows(TokenId token) {
  State& s = *state_;
  if (s.vocabulary->IsEndOfGeneration(token)) return s.now.may_end();
  s.BeginAsking();
  const bool allowed = s.Ask(token, s.vocabulary->Piece(token, true));
  SHOAL_RETURN_IF_ERROR(s.EndAsking());
  return allowed;
}

Status GrammarMatcher::ForEachAllowed(const std::function<bool(TokenId)>& asked,
                                      const std::function<bool(TokenId)>& visit) {
  State& s = *state_;
  s.BeginAsking();
  const bool may_end = s.now.may_end();
  const bool must_end = may_end && s.now.stacks.size() == 1;
  const Vocabulary::Pieces& pieces = s.vocabulary->pieces();
  for (const TokenId token : pieces.in_order) {
    if (!asked(token)) continue;
    const bool is_end = s.vocabulary->IsEndOfGeneration(token);
    const bool allowed = is_end ? may_end : !must_end && s.Ask(token, pieces.of_token[static_cast<std::size_t>(token)]);
    if (s.over || (allowed && !visit(token))) break;
  }
  return s.EndAsking();
}

}  // namespace shoal
