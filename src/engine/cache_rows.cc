// What is passed on: [position i32] of each row in the cache's order, then types and data as libllama wrote them.
#include "engine/cache_rows.h"

#include <cstring>
#include <exception>

#include "engine/llama_guard.h"
#include "engine/llama_log.h"

namespace shoal {
namespace {

constexpr llama_seq_id kScratch = 255;  // the last that libllama has
constexpr std::size_t kHeaderBytes = 16, kCellBytes = 8, kCellInBytes = 12;
constexpr std::size_t kStreamsAt = 8, kCellsAt = 12;

std::uint32_t WordAt(std::span<const std::uint8_t> bytes, std::size_t at) {
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  return word;
}

void Put(std::vector<std::uint8_t>& bytes, std::uint32_t word) {
  const std::size_t at = bytes.size();
  bytes.resize(at + sizeof word);
  std::memcpy(bytes.data() + at, &word, sizeof word);
}

// The scratch sequence is empty before and after.
class Scratch {
 public:
  explicit Scratch(llama_context* context) : memory_(llama_get_memory(context)) { Clear(); }
  ~Scratch() { Clear(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

 private:
  void Clear() { llama_memory_seq_rm(memory_, kScratch, -1, -1); }
  llama_memory_t memory_;
};

Error Unsupported() { return {ErrorCode::kUnsupported, "rows of this kind of KV cache cannot be passed on"}; }

// The scratch sequence's state.
Result<std::vector<std::uint8_t>> ReadScratch(llama_context* context, std::size_t cells) {
  std::vector<std::uint8_t> state(llama_state_seq_get_size(context, kScratch));
  const std::size_t size = state.empty() ? 0 : llama_state_seq_get_data(context, state.data(), state.size(), kScratch);
  const bool sound = size == state.size() && size >= kHeaderBytes + cells * kCellBytes &&
                     WordAt(state, kStreamsAt) == 1 && WordAt(state, kCellsAt) == cells;
  if (!sound) return Unsupported();
  return state;
}

// Whether `count` positions, every `stride` bytes, are [from, to) in any order.
bool ArePositions(std::span<const std::uint8_t> bytes, std::size_t stride, Position from, Position to) {
  std::vector<bool> seen(static_cast<std::size_t>(to - from));
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto position = static_cast<Position>(WordAt(bytes, i * stride));
    if (position < from || position >= to || seen[static_cast<std::size_t>(position - from)]) return false;
    seen[static_cast<std::size_t>(position - from)] = true;
  }
  return true;
}

}  // namespace

Result<std::vector<std::uint8_t>> ReadCacheRows(llama_context* context, SequenceId sequence, Position from,
                                                Position to) {
  const auto rows = static_cast<std::size_t>(to - from);
  const Scratch scratch(context);
  LlamaErrors errors;
  try {
    LlamaGuard guard;
    llama_memory_seq_cp(llama_get_memory(context), sequence, kScratch, from, to);
    SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> state, ReadScratch(context, rows));
    const std::span cells = std::span(state).subspan(kHeaderBytes);
    if (!ArePositions(cells, kCellBytes, from, to)) return Unsupported();
    std::vector<std::uint8_t> out;
    out.reserve(state.size());
    for (std::size_t i = 0; i < rows; ++i) {
      if (WordAt(cells, i * kCellBytes + 4) != 0) return Unsupported();
      Put(out, WordAt(cells, i * kCellBytes));
    }
    out.insert(out.end(), cells.begin() + static_cast<std::ptrdiff_t>(rows * kCellBytes), cells.end());
    return out;
  } catch (const std::exception&) { return Unsupported(); }
}

Status WriteCacheRows(llama_context* context, SequenceId sequence, Position from, Position to,
                      std::span<const std::uint8_t> rows) {
  const auto count = static_cast<std::size_t>(to - from);
  const Error corrupt{ErrorCode::kCorrupt, "these are no rows of this KV cache, or there is no room for them"};
  if (rows.size() <= count * sizeof(Position) || !ArePositions(rows, sizeof(Position), from, to)) return corrupt;
  const Scratch scratch(context);
  LlamaErrors errors;
  try {
    LlamaGuard guard;
    SHOAL_ASSIGN_OR_RETURN(std::vector<std::uint8_t> state, ReadScratch(context, 0));
    state.resize(kCellsAt);  // the beginning of an empty one is that of any
    state.reserve(kHeaderBytes + count * kCellInBytes + rows.size());
    Put(state, static_cast<std::uint32_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
      Put(state, WordAt(rows, i * sizeof(Position)));
      Put(state, 1);
      Put(state, static_cast<std::uint32_t>(kScratch));
    }
    state.insert(state.end(), rows.begin() + static_cast<std::ptrdiff_t>(count * sizeof(Position)), rows.end());
    if (llama_state_seq_set_data(context, state.data(), state.size(), kScratch) != state.size()) return corrupt;
    llama_memory_seq_cp(llama_get_memory(context), kScratch, sequence, from, to);
    return {};
  } catch (const std::exception&) { return corrupt; }
}

}  // namespace shoal
