// Looks at JSON schemas before llama-common makes a grammar of them, and refuses what would make it recurse, copy or
// loop without bound: clients send schemas, and a thread of the API converts them.
//
// Follows a schema as llama-common does (common/json-schema.cpp, json-schema-to-grammar.cpp): references where they
// lead, and a list of types once for each. Knows no grammar: engine/grammar_check.h looks at what comes out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

class common_json;

namespace shoal {

inline constexpr std::size_t kSchemaBytesMax = 1U << 20;         // of all schemas of a request, as compact JSON
inline constexpr std::size_t kSchemaNameBytesMax = 256;          // a property's name
inline constexpr std::size_t kSchemaOpenNameCharactersMax = 60;  // the same in an object that allows other properties
inline constexpr std::size_t kSchemaReferenceBytesMax = 1'024;   // a $ref
inline constexpr std::size_t kSchemaPatternBytesMax = 1'024;     // a pattern
inline constexpr int kSchemaPatternsMax = 64;
inline constexpr std::size_t kSchemaPropertiesMax = 256;    // of one object, those that allOf gathers included
inline constexpr int kSchemaNodesMax = 20'000;              // subschemas, each as often as it is converted
inline constexpr int kSchemaDepthMax = 150;                 // schemas inside schemas, through references too
inline constexpr int kSchemaReferencesInARowMax = 16;       // references to references
inline constexpr std::int64_t kSchemaWorkMax = 40'000'000;  // of about 10 ns

// Of one request: the limits hold for all its schemas together.
class SchemaCheck {
 public:
  // Takes `schema`, called `what` in messages. A pattern that no grammar can follow is renamed to "x-pattern", so that
  // any string is allowed there: llama-common would do the same, and print it. A pattern that is no regular expression
  // is left for llama-common to refuse. Errors: kInvalidArgument, naming the limit.
  Status Take(common_json& schema, const char* what);

 private:
  std::size_t bytes_ = 0;
  int nodes_ = 0;
  int patterns_ = 0;
  std::int64_t work_ = 0;
};

}  // namespace shoal
