// Reads a GBNF grammar before libllama does, to refuse with a clear message what does not parse, and what would make
// libllama recurse, allocate or loop without bound: clients send grammars, and the last stage must survive them.
//
// Syntax: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. Knows no vocabulary and matches no
// text.
//
// What no reading of the grammar alone can bound is ambiguity that doubles with every character of text:
// grammar_matcher.h does.
#pragma once

#include <string_view>

#include "base/result.h"

namespace shoal {

inline constexpr int kGrammarNestingMax = 64;            // groups inside groups
inline constexpr int kGrammarRulesMax = 8192;            // named rules and groups
inline constexpr int kGrammarElementsMax = 1 << 20;      // after repetitions are written out
inline constexpr int kGrammarLeftDepthMax = 512;         // rules that may start one another in a chain
inline constexpr int kGrammarAlternativesMax = 1 << 14;  // ways in which one rule can begin
inline constexpr int kGrammarRepetitionMax = 2000;       // libllama's own limit

// Errors: kInvalidArgument, naming line and cause, or the rule and the limit.
Status CheckGrammar(std::string_view grammar);

}  // namespace shoal
