// The table behind split_rules.h: one entry an architecture, as plain data. Private to engine/.
//
// Knows architecture names and how libllama's graphs depend on a layer's index; reads no model.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace shoal {

// Which layers have a sliding window, where libllama derives it from the layer index.
struct WindowRule {
  enum class When : std::uint8_t {
    kNever,  // no such layers, or libllama works them out from something that a shard keeps
    kAlways,
    kIfWindow,  // <arch>.attention.sliding_window present and above 0
  };
  When when = When::kNever;
  std::int32_t period = 0;  // when the file names no pattern: every period-th layer is full; 0: the file always does
  bool full_first = false;  // the full layer is the first of each period, not the last
};

// Which layers keep a recurrent state instead of keys and values.
enum class RecurrentRule : std::uint8_t {
  kNone,
  kEvery,      // every layer, alone or beside attention
  kNoKvHeads,  // those whose <arch>.attention.head_count_kv is 0
  kNoKvNoFfn,  // those without KV heads and without a feed-forward part
  kInterval,   // <arch>.attention.recurrent_layers, else all but every <arch>.full_attention_interval-th
};

enum class InputScale : std::uint8_t {
  kNone,
  kTokensOnly,  // libllama multiplies token embeddings by sqrt(n_embd), but no other input
  kAnyInput,    // libllama multiplies any input by sqrt(n_embd)
};

enum class PositionRule : std::uint8_t { kOne, kFour, kFourIfSections };

struct ArchitectureEntry {
  std::string_view architecture;
  std::int32_t multiple = 1;           // cuts only at multiples of this
  std::string_view multiple_key = {};  // ... and of <arch>.<this key>
  WindowRule window = {};
  RecurrentRule recurrent = RecurrentRule::kNone;
  InputScale scale = InputScale::kNone;
  PositionRule positions = PositionRule::kOne;
  // Layer counts at which libllama sets constants of its own: a model of that size runs whole, no stage may have it.
  std::span<const std::int32_t> special_counts = {};
  bool special_if_head_width = false;  // ... only when n_embd / n_head is not the key length
  // Layers with a 0 in <arch>.attention.indexer.types use what the nearest layer before them found.
  bool shared_indexers = false;
  std::string_view hidden_tensor = "l_out";
};

// An architecture that is known not to be exact, and why.
struct WholeEntry {
  std::string_view architecture;
  std::string_view reason;
};

std::span<const ArchitectureEntry> ArchitectureTable();
std::span<const WholeEntry> WholeTable();
const ArchitectureEntry* FindArchitecture(std::string_view architecture);

}  // namespace shoal
