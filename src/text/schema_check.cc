// Two walks over each schema, as llama-common takes two: one builds nodes, one visits them for rules. Both count what
// that will cost, so that the walks themselves are bounded, too.
#include "text/schema_check.h"

#include <json.h>  // llama-common

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace shoal {
namespace {

constexpr double kBoundMax = 9e18;       // of an integer: llama-common computes with 64 bits
constexpr int kPatternGroupsMax = 100;   // inside one another; llama-common's own limit
constexpr std::int64_t kRuleWork = 40;   // of one rule, beside its name
constexpr std::int64_t kByteWork = 3;    // of each byte of its name
constexpr std::int64_t kClashWork = 30;  // of one name tried after another was taken
constexpr std::int64_t kCopyWork = 3;    // of one name in a list that is copied
constexpr std::string_view kEscapesAnywhere = "trn\\\"[]-";
constexpr std::string_view kEscapesOutsideClasses = "^$.[]()|{}*+?";

Error Invalid(const std::string& why) { return Error{ErrorCode::kInvalidArgument, why}; }

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Bytes of the escape at `pos` that a grammar knows too; 0: none.
std::size_t EscapeBytes(std::string_view pattern, std::size_t pos) {
  if (pos + 1 >= pattern.size()) return 0;
  const char kind = pattern[pos + 1];
  if (kEscapesAnywhere.find(kind) != std::string_view::npos) return 2;
  const std::size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
  if (digits == 0 || pos + 2 + digits > pattern.size()) return 0;
  const std::string_view hex = pattern.substr(pos + 2, digits);
  return std::all_of(hex.begin(), hex.end(), IsHex) ? 2 + digits : 0;
}

// "{2}", "{2,}", "{,3}", "{2,3}" with numbers as std::stoi takes them. Moves `pos` past it.
bool RepetitionFits(std::string_view pattern, std::size_t& pos) {
  const std::size_t end = pattern.find('}', pos);
  if (end == std::string_view::npos) return false;
  const std::string inside(pattern.substr(pos + 1, end - pos - 1));
  pos = end + 1;
  const std::size_t comma = inside.find(',');
  const auto number = [](const std::string& text) {
    char* rest = nullptr;
    errno = 0;
    const long value = std::strtol(text.c_str(), &rest, 10);
    return rest != text.c_str() && errno == 0 && value >= INT32_MIN && value <= INT32_MAX;
  };
  if (comma == std::string::npos) return number(inside);
  const std::string most = inside.substr(comma + 1);
  if (most.find(',') != std::string::npos) return false;
  return (comma == 0 || number(inside.substr(0, comma))) && (most.empty() || number(most));
}

// Whether llama-common makes a grammar of `pattern`. True also for one that it refuses with an error.
bool PatternFits(std::string_view pattern) {
  if (pattern.size() < 2 || pattern.front() != '^' || pattern.back() != '$') return false;
  pattern = pattern.substr(1, pattern.size() - 2);
  int groups = 0;
  for (std::size_t pos = 0; pos < pattern.size();) {
    switch (pattern[pos]) {
      case '(':
        if (++groups > kPatternGroupsMax) return false;
        ++pos;
        if (pattern.substr(pos, 1) == "?") {
          if (pattern.substr(pos, 2) != "?:") return false;
          pos += 2;
        }
        break;
      case ')':
        if (--groups < 0) return true;  // an error
        ++pos;
        break;
      case '^':
      case '$':
      case ']':
      case '}': return false;
      case '[':
        for (++pos; pos < pattern.size() && pattern[pos] != ']';) {
          const std::size_t bytes = pattern[pos] == '\\' ? EscapeBytes(pattern, pos) : 1;
          if (bytes == 0) return false;
          pos += bytes;
        }
        ++pos;
        break;
      case '{':
        if (!RepetitionFits(pattern, pos)) return false;
        break;
      case '\\': {
        const bool plain =
            pos + 1 < pattern.size() && kEscapesOutsideClasses.find(pattern[pos + 1]) != std::string_view::npos;
        const std::size_t bytes = plain ? 2 : EscapeBytes(pattern, pos);
        if (pos + 1 == pattern.size()) return true;  // an error
        if (bytes == 0) return false;
        pos += bytes;
        break;
      }
      default: ++pos;
    }
  }
  return true;
}

std::size_t Characters(std::string_view utf8) {
  return static_cast<std::size_t>(
      std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

bool IsNode(const common_json& schema) { return schema.is_object(); }

const common_json* Member(const common_json& object, const char* key) {
  return object.contains(key) ? &object.at(key) : nullptr;
}
common_json* Member(common_json& object, const char* key) { return object.contains(key) ? &object.at(key) : nullptr; }

// The names of rules as llama-common writes them: runs of other characters are one '-'.
std::string RuleName(std::string_view text) {
  std::string name;
  bool in_run = false;
  for (const char c : text) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    if (kept || !in_run) name += kept ? c : '-';
    in_run = !kept;
  }
  return name;
}

// Where a schema is: the name of its rule, and the bytes of that name before characters were replaced.
struct Path {
  std::string rule;
  std::int64_t bytes = 0;
};

Path Under(const Path& path, const std::string& name) {
  const std::string before = path.rule.empty() ? "" : path.rule + "-";
  return {before + RuleName(name), path.bytes + 1 + static_cast<std::int64_t>(name.size())};
}

struct Counters {
  int& nodes;
  int& patterns;
  std::int64_t& work;
};

class Walk {
 public:
  Walk(common_json& root, std::string what, Counters counters, bool builds)
      : root_(root), what_(std::move(what)), counters_(counters), builds_(builds) {}

  Status Node(common_json& schema, const Path& path, int depth) {
    if (++counters_.nodes > 2 * kSchemaNodesMax) return TooMany(kSchemaNodesMax, "schemas inside it");
    if (depth > kSchemaDepthMax) return TooMany(kSchemaDepthMax, "schemas inside one another");
    if (!IsNode(schema)) return {};
    SHOAL_RETURN_IF_ERROR(AddRule(path));
    if (const common_json* reference = Member(schema, "$ref")) return Reference(*reference, depth);
    for (const char* key : {"oneOf", "anyOf"}) {
      if (common_json* alternatives = Member(schema, key)) return Nodes(*alternatives, path, depth);
    }
    const common_json* type = Member(schema, "type");
    return type == nullptr ? Typed(schema, "", path, depth) : OfType(schema, *type, path, depth);
  }

  // llama-common asks of a tool's arguments what types they may have, and follows references as often as it meets them.
  Status Types(const common_json& schema, int depth) {
    SHOAL_RETURN_IF_ERROR(Spend(kRuleWork));
    if (depth > kSchemaDepthMax) return TooMany(kSchemaDepthMax, "schemas inside one another");
    if (!IsNode(schema)) return {};
    if (const common_json* reference = Member(schema, "$ref")) {
      SHOAL_ASSIGN_OR_RETURN(const common_json* end, Follow(*reference));
      return end == nullptr ? Status{} : Types(*end, depth + 1);
    }
    const common_json* type = Member(schema, "type");
    const std::size_t times = type != nullptr && type->is_array() ? type->size() : 1;
    for (const char* key : {"allOf", "anyOf", "oneOf"}) {
      const common_json* parts = Member(schema, key);
      if (parts == nullptr || !parts->is_array()) continue;
      for (std::size_t i = 0; i < times * parts->size(); ++i) {
        SHOAL_RETURN_IF_ERROR(Types(parts->at(i % parts->size()), depth + 1));
      }
    }
    return {};
  }

 private:
  Error TooMany(std::int64_t limit, const std::string& of) const {
    return Invalid(what_ + ": more than " + std::to_string(limit) + " " + of);
  }

  Status Spend(std::int64_t work) {
    counters_.work += work;
    if (counters_.work > kSchemaWorkMax) {
      return Invalid(what_ +
                     ": too complex: it has too many optional properties, or names that are too long, or too "
                     "many references inside one another");
    }
    return {};
  }

  // The name is searched for characters to replace; if it is taken, numbers are tried after it one by one.
  Status AddRule(const Path& name) {
    return Spend(kRuleWork + name.bytes * kByteWork + names_[name.rule]++ * ClashWork(name));
  }
  static std::int64_t ClashWork(const Path& name) {
    return kClashWork + static_cast<std::int64_t>(name.rule.size()) / 8;
  }

  // A list of types is converted once for each of them.
  Status OfType(common_json& schema, const common_json& type, const Path& path, int depth) {
    if (type.is_string()) return Typed(schema, type.get<std::string>(), path, depth);
    if (!type.is_array()) return {};
    for (std::size_t i = 0; i < type.size(); ++i) {
      if (++counters_.nodes > 2 * kSchemaNodesMax) return TooMany(kSchemaNodesMax, "schemas inside it");
      const Path inner = Under(path, std::to_string(i));
      SHOAL_RETURN_IF_ERROR(AddRule(inner));
      SHOAL_RETURN_IF_ERROR(OfType(schema, common_json(type.at(i)), inner, depth + 1));
    }
    return {};
  }

  Status Typed(common_json& schema, const std::string& type, const Path& path, int depth) {
    if (schema.contains("const") || schema.contains("enum")) return {};
    const common_json* additional = Member(schema, "additionalProperties");
    const bool has_properties = schema.contains("properties") || (additional != nullptr && additional->is_object());
    const bool is_object = type == "object" || (type.empty() && has_properties);
    if (type.empty() || type == "string" || (type == "object" && !has_properties)) {
      if (common_json* parts = Member(schema, "allOf"); parts != nullptr && !(type.empty() && has_properties)) {
        return AllOf(*parts, path, depth);
      }
    }
    if (is_object) return Object(schema, path, depth);
    for (const char* key : {"items", "prefixItems"}) {
      common_json* items = type.empty() || type == "array" ? Member(schema, key) : nullptr;
      if (items == nullptr) continue;
      return items->is_array() ? Nodes(*items, path, depth) : Node(*items, Under(path, "item"), depth + 1);
    }
    if (type == "integer") return Integer(schema);
    if (type.empty() || type == "string") return Pattern(schema);
    return {};
  }

  Status Nodes(common_json& schemas, const Path& path, int depth) {
    if (!schemas.is_array()) return {};
    for (std::size_t i = 0; i < schemas.size(); ++i) {
      SHOAL_RETURN_IF_ERROR(Node(schemas.at(i), Under(path, std::to_string(i)), depth + 1));
    }
    return {};
  }

  // ---- References ---------------------------------------------------------------------------------------------------

  common_json* Find(const std::string& reference) {
    if (reference.compare(0, 2, "#/") != 0) return nullptr;
    common_json* target = &root_;
    for (std::size_t begin = 2; begin <= reference.size();) {
      const std::size_t end = std::min(reference.find('/', begin), reference.size());
      const std::string step = reference.substr(begin, end - begin);
      begin = end + 1;
      if (target->is_object() && target->contains(step)) {
        target = &target->at(step);
      } else if (target->is_array()) {
        char* rest = nullptr;
        const std::size_t index = std::strtoull(step.c_str(), &rest, 10);
        if (rest == step.c_str() || index >= target->size()) return nullptr;
        target = &target->at(index);
      } else {
        return nullptr;
      }
    }
    return target;
  }

  // The end of a chain of references. Null: there is none.
  Result<common_json*> Follow(const common_json& first) {
    const common_json* reference = &first;
    for (int i = 0; i <= kSchemaReferencesInARowMax; ++i) {
      if (!reference->is_string()) return static_cast<common_json*>(nullptr);
      const auto text = reference->get<std::string>();
      if (text.size() > kSchemaReferenceBytesMax) {
        return Invalid(what_ + ": a $ref has more than " + std::to_string(kSchemaReferenceBytesMax) + " bytes");
      }
      SHOAL_RETURN_IF_ERROR(Spend(kRuleWork + static_cast<std::int64_t>(text.size())));
      common_json* target = Find(text);
      if (target == nullptr || !IsNode(*target)) return static_cast<common_json*>(nullptr);
      reference = Member(*target, "$ref");
      if (reference == nullptr) return target;
    }
    return TooMany(kSchemaReferencesInARowMax, "references that lead to references");
  }

  Status Reference(const common_json& reference, int depth) {
    SHOAL_ASSIGN_OR_RETURN(common_json * end, Follow(reference));
    if (end == nullptr) return {};  // llama-common says what is wrong
    const auto text = reference.get<std::string>();
    if (!followed_.insert(text).second) return {};
    const std::string name = "ref" + text.substr(1);
    return Node(*Find(text), {RuleName(name), static_cast<std::int64_t>(name.size())}, depth + 1);
  }

  // ---- Objects ------------------------------------------------------------------------------------------------------

  struct Property {
    std::string name;
    common_json* schema;
  };

  Status Object(common_json& schema, const Path& path, int depth) {
    std::vector<Property> properties;
    if (common_json* given = Member(schema, "properties"); given != nullptr && given->is_object()) {
      SHOAL_RETURN_IF_ERROR(Gather(*given, properties));
    }
    common_json* additional = Member(schema, "additionalProperties");
    const bool open =
        additional != nullptr && (additional->is_object() || (additional->is_boolean() && additional->get<bool>()));
    for (const Property& property : properties) {
      if (open && Characters(property.name) > kSchemaOpenNameCharactersMax) {
        return Invalid(what_ + ": a property's name has more than " + std::to_string(kSchemaOpenNameCharactersMax) +
                       " characters, in an object that allows additional properties");
      }
    }
    std::set<std::string> required;
    if (const common_json* names = Member(schema, "required"); names != nullptr && names->is_array()) {
      for (std::size_t i = 0; i < names->size(); ++i) {
        if (names->at(i).is_string()) required.insert(names->at(i).get<std::string>());
      }
    }
    SHOAL_RETURN_IF_ERROR(Rules(properties, required, path));
    for (const Property& property : properties) {
      SHOAL_RETURN_IF_ERROR(Node(*property.schema, Under(path, property.name), depth + 1));
    }
    return open && additional->is_object() ? Node(*additional, Under(path, "additional-value"), depth + 1) : Status{};
  }

  Status Gather(common_json& from, std::vector<Property>& properties) {
    for (const auto& [name, schema] : from.items()) {
      if (name.size() > kSchemaNameBytesMax) {
        return Invalid(what_ + ": a property's name has more than " + std::to_string(kSchemaNameBytesMax) + " bytes");
      }
      properties.push_back({name, &schema});
      if (properties.size() > kSchemaPropertiesMax) return TooMany(kSchemaPropertiesMax, "properties of one object");
    }
    return {};
  }

  // Each optional property begins a list of those after it, and each list has a rule of its own at every length.
  Status Rules(const std::vector<Property>& properties, const std::set<std::string>& required, const Path& path) {
    std::vector<Path> optional;
    for (const Property& property : properties) {
      const Path name = Under(path, property.name);
      SHOAL_RETURN_IF_ERROR(AddRule(Under(name, "kv")));
      if (required.count(property.name) == 0) optional.push_back(Under(name, "rest"));
    }
    if (builds_) return {};
    for (std::size_t i = 0; i < optional.size(); ++i) {
      const Path& name = optional[i];
      const auto times = static_cast<std::int64_t>(i + 1);
      const auto after = static_cast<std::int64_t>(optional.size() - i);
      SHOAL_RETURN_IF_ERROR(Spend(
          times * (kRuleWork + name.bytes * kByteWork + kCopyWork * after + names_[name.rule]++ * ClashWork(name))));
    }
    return {};
  }

  // One object of the properties of all parts, or of what the parts refer to.
  Status AllOf(common_json& parts, const Path& path, int depth) {
    if (builds_) return Nodes(parts, path, depth);
    if (!parts.is_array()) return {};
    std::vector<Property> properties;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      common_json& part = parts.at(i);
      if (!IsNode(part)) continue;
      common_json* alternatives = Member(part, "oneOf");
      if (alternatives == nullptr) alternatives = Member(part, "anyOf");
      if (part.contains("$ref") || alternatives == nullptr) {
        SHOAL_RETURN_IF_ERROR(GatherPart(part, properties));
      } else if (alternatives->is_array()) {
        for (std::size_t k = 0; k < alternatives->size(); ++k) {
          SHOAL_RETURN_IF_ERROR(GatherPart(alternatives->at(k), properties));
        }
      }
    }
    SHOAL_RETURN_IF_ERROR(Rules(properties, {}, path));
    for (const Property& property : properties) {
      SHOAL_RETURN_IF_ERROR(Node(*property.schema, Under(path, property.name), depth + 1));
    }
    return {};
  }

  Status GatherPart(common_json& part, std::vector<Property>& properties) {
    SHOAL_RETURN_IF_ERROR(Spend(kRuleWork));
    common_json* object = &part;
    if (IsNode(part) && part.contains("$ref")) { SHOAL_ASSIGN_OR_RETURN(object, Follow(part.at("$ref"))); }
    if (object == nullptr || !IsNode(*object)) return {};
    common_json* given = Member(*object, "properties");
    if (given == nullptr || !given->is_object()) return {};
    const common_json* type = Member(*object, "type");
    const std::size_t times = type != nullptr && type->is_array() ? type->size() : 1;
    for (std::size_t i = 0; i < times; ++i) SHOAL_RETURN_IF_ERROR(Gather(*given, properties));
    return {};
  }

  // ---- Values -------------------------------------------------------------------------------------------------------

  Status Integer(const common_json& schema) const {
    for (const std::string key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const common_json* bound = Member(schema, key.c_str());
      if (bound == nullptr || !bound->is_number()) continue;
      const auto value = bound->get<double>();
      const bool exact = bound->is_number_integer() && key.compare(0, 9, "exclusive") != 0;
      if ((!exact && std::abs(value) > kBoundMax) || (key == "maximum" && value < -kBoundMax)) {
        return Invalid(what_ + ": '" + key + "' of an integer is too large or too small");
      }
    }
    return {};
  }

  Status Pattern(common_json& schema) {
    const common_json* given = Member(schema, "pattern");
    if (given == nullptr || !given->is_string()) return {};
    const auto pattern = given->get<std::string>();
    if (pattern.size() > kSchemaPatternBytesMax) {
      return Invalid(what_ + ": a pattern has more than " + std::to_string(kSchemaPatternBytesMax) + " bytes");
    }
    if (!pattern.empty() && !PatternFits(pattern)) {
      schema.erase("pattern");
      schema["x-pattern"] = pattern;
      if (!schema.contains("type")) schema["type"] = "string";
      return {};
    }
    if (!builds_) return {};
    if (++counters_.patterns > kSchemaPatternsMax) return TooMany(kSchemaPatternsMax, "patterns");
    return {};
  }

  common_json& root_;
  const std::string what_;
  Counters counters_;
  const bool builds_;
  std::set<std::string> followed_;
  std::unordered_map<std::string, int> names_;
};

}  // namespace

Status SchemaCheck::Take(common_json& schema, const char* what) {
  if (!schema.is_object()) return {};  // the caller's to refuse
  bytes_ += schema.dump_safe().size();
  if (bytes_ > kSchemaBytesMax) {
    return Invalid(std::string(what) + ": more than " + std::to_string(kSchemaBytesMax) + " bytes of schemas");
  }
  const Counters counters{nodes_, patterns_, work_};
  Walk build(schema, what, counters, true);
  SHOAL_RETURN_IF_ERROR(build.Node(schema, {}, 0));
  SHOAL_RETURN_IF_ERROR(build.Types(schema, 0));
  if (const common_json* properties = Member(std::as_const(schema), "properties"); properties != nullptr) {
    for (const auto& [name, property] : properties->items()) SHOAL_RETURN_IF_ERROR(build.Types(property, 1));
  }
  return Walk(schema, what, counters, false).Node(schema, {}, 0);
}

}  // namespace shoal
