// Reads the --stages text: a number of stages, or layer ranges. Knows only how many layers there are; whether an
// architecture may be cut there is engine/split_rules.h's.
#include <algorithm>
#include <charconv>
#include <optional>

#include "model/model_info.h"

namespace shoal {
namespace {

Error Invalid(const std::string& what) { return {ErrorCode::kInvalidArgument, "stages: " + what}; }

std::string Quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 40)) out += (c >= ' ' && c <= '~') ? c : '?';
  return out + (text.size() > 40 ? "...'" : "'");
}

// Decimal digits only; numbers beyond 32 bits are empty too.
std::optional<std::int32_t> Number(std::string_view text) {
  std::int32_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || v < 0 || text[0] == '-') return std::nullopt;
  return v;
}

std::string RangeText(LayerRange range) { return std::to_string(range.first) + "-" + std::to_string(range.last - 1); }

// Earlier stages get the layers that are left over: the last one has the output head too.
Result<std::vector<LayerRange>> Even(std::int32_t stages, std::int32_t n_layer) {
  if (stages == 0) return Invalid("there must be at least one");
  if (stages > n_layer) {
    return Invalid(std::to_string(stages) + " of them, but the model has " + std::to_string(n_layer) + " layers");
  }
  std::vector<LayerRange> out;
  std::int32_t first = 0;
  for (std::int32_t i = 0; i < stages; ++i) {
    const std::int32_t count = n_layer / stages + (i < n_layer % stages ? 1 : 0);
    out.push_back({first, first + count});
    first += count;
  }
  return out;
}

// "10-19", or "10" for a single layer.
Result<LayerRange> Range(std::string_view text, std::int32_t n_layer) {
  const std::size_t dash = text.find('-');
  const auto first = Number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : Number(text.substr(dash + 1));
  if (!first || !last) return Invalid(Quoted(text) + " is not a range of layers such as 0-9");
  if (*last < *first) return Invalid(Quoted(text) + " ends before it starts");
  if (*last >= n_layer) {
    return Invalid(Quoted(text) + " is out of range: the model has layers 0-" + std::to_string(n_layer - 1));
  }
  return LayerRange{*first, *last + 1};
}

}  // namespace

Result<std::vector<LayerRange>> ParseStages(std::string_view text, std::int32_t n_layer) {
  if (n_layer <= 0) return Invalid("the model has no layers");
  if (text.empty()) return Invalid("give their number (3) or their layers (0-9,10-19,20-29)");
  if (text.find_first_of("-,") == std::string_view::npos) {
    const auto stages = Number(text);
    if (!stages) return Invalid(Quoted(text) + " is not a number of stages");
    return Even(*stages, n_layer);
  }
  std::vector<LayerRange> out;
  std::int32_t next = 0;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    SHOAL_ASSIGN_OR_RETURN(const LayerRange range, Range(text.substr(at, comma - at), n_layer));
    if (range.first > next) {
      return Invalid("a gap: layers " + RangeText({next, range.first}) + " before " + RangeText(range) +
                     " are in no stage");
    }
    if (range.first < next) {
      return Invalid("an overlap or wrong order: " + RangeText(range) + " should start at layer " +
                     std::to_string(next));
    }
    out.push_back(range);
    next = range.last;
    at = comma + 1;
  }
  if (next < n_layer) return Invalid("a gap: layers " + RangeText({next, n_layer}) + " at the end are in no stage");
  return out;
}

}  // namespace shoal
