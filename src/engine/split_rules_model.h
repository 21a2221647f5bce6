// One model seen through its line of the table: which layers are of which kind. Private to engine/.
//
// Reads GGUF metadata only, and trusts none of it: absent or odd values give the default.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/split_rules_table.h"
#include "model/model_info.h"

namespace shoal {

// From this context length on libllama takes GLM-DSA's layers to share indexers, by a list of its own.
inline constexpr std::int64_t kGlmSharedIndexerContext = 1048576;

class SplitModel {
 public:
  explicit SplitModel(const ModelFile& file);

  const ModelInfo& info() const { return file_.info; }
  const std::string& architecture() const { return file_.info.architecture; }
  const ArchitectureEntry* entry() const { return entry_; }        // null: not in the table
  std::int32_t n_layer_all() const { return file_.info.n_layer; }  // <arch>.block_count
  std::int32_t n_layer() const { return n_layer_; }                // without the layers that predict further tokens

  // "<architecture>.<suffix>"
  std::string Key(std::string_view suffix) const { return architecture() + "." + std::string(suffix); }
  const GgufValue* Find(std::string_view suffix) const { return file_.gguf.Find(Key(suffix)); }
  bool IsArray(std::string_view suffix) const;
  std::int64_t Int(std::string_view suffix, std::int64_t absent) const;
  // The value for `layer`: an element of an array, or one number for all.
  std::int64_t Value(std::string_view suffix, std::int32_t layer, std::int64_t absent) const;

  // The rest needs an entry, where it says nothing else.
  std::int32_t CutMultiple() const;
  bool IsSpecialCount(std::int32_t count) const;
  bool IsLite() const;      // DeepSeek 2: without query compression
  bool HasWindows() const;  // some layers have a sliding window
  bool IsWindow(std::int32_t layer) const;
  bool IsHybrid() const;  // some layers are recurrent, some have attention
  bool IsRecurrent(std::int32_t layer) const;
  bool IsAttention(std::int32_t layer) const;
  std::int32_t PositionRows() const;  // any architecture

 private:
  const ModelFile& file_;
  const ArchitectureEntry* entry_;
  std::int32_t n_layer_;
};

// "every cut", "multiples of 4; each stage needs a sliding-window layer", …
std::string_view NoteFor(const ArchitectureEntry& entry);

}  // namespace shoal
