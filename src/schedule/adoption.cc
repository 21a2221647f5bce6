// What the stages bring along from an earlier epoch becomes slots; what cannot be used is forgotten on the stage.
//
// Stages may disagree about a slot: a lost one brings nothing, and the one before a lost one was told of newer requests
// than those behind. What the first of them says counts, continued by whoever holds more of the same.
#include <algorithm>
#include <string>

#include "base/check.h"
#include "schedule/scheduler_state.h"

namespace shoal {

Status Scheduler::State::CheckInventories(const std::vector<InventoryMessage>& stages) const {
  if (static_cast<std::int32_t>(stages.size()) != options.stages) {
    return Error{ErrorCode::kCorrupt, std::to_string(stages.size()) + " stages say what they hold; there are " +
                                          std::to_string(options.stages)};
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    bool possible = stages[i].stage == static_cast<StageIndex>(i);
    for (const HeldSequence& held : stages[i].sequences) {
      const auto length = static_cast<std::int64_t>(held.tokens.size());
      possible = possible && held.sequence >= 0 && held.sequence < options.slots_max &&
                 length <= options.kv_tokens_max && held.log_from >= 0 && held.log_from <= length;
    }
    if (possible) continue;
    return Error{ErrorCode::kCorrupt, "stage " + std::to_string(i) + " says that it holds what it cannot hold"};
  }
  return {};
}

Status Scheduler::State::Adopt(std::vector<InventoryMessage> stages) {
  SHOAL_CHECK(batches == 0 && running.empty());
  SHOAL_RETURN_IF_ERROR(CheckInventories(stages));
  std::vector<std::vector<const HeldSequence*>> held(options.slots_max,
                                                     std::vector<const HeldSequence*>(stages.size()));
  for (const InventoryMessage& stage : stages) {
    for (const HeldSequence& sequence : stage.sequences) held[sequence.sequence][stage.stage] = &sequence;
  }
  for (SequenceId slot = 0; slot < options.slots_max; ++slot) AdoptSlot(slot, held[slot]);
  return {};
}

// `stages`: what each holds of the slot; null: nothing.
void Scheduler::State::AdoptSlot(SequenceId slot, const std::vector<const HeldSequence*>& stages) {
  std::vector<TokenId> tokens;
  for (const HeldSequence* stage : stages) {
    if (stage != nullptr && CommonPrefix(stage->tokens, tokens) == static_cast<Position>(tokens.size())) {
      tokens = stage->tokens;
    }
  }
  std::vector<Position> held(stages.size()), sent_from(stages.size());
  bool whole = true;  // every stage has all of it, and nothing else
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (stages[i] != nullptr) held[i] = CommonPrefix(stages[i]->tokens, tokens);
    sent_from[i] = stages[i] != nullptr ? std::min(stages[i]->log_from, held[i]) : 0;
    whole = whole && stages[i] != nullptr && stages[i]->tokens.size() == tokens.size() && held[i] == std::ssize(tokens);
  }
  // A reproducible run has had its rows in the same micro-batches; a model that cannot be rewound cannot be filled.
  const bool usable = !options.reproducible && (options.rewindable || whole);
  if (!usable || !HasRoom(std::ssize(tokens))) std::fill(held.begin(), held.end(), 0);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (stages[i] == nullptr || std::ssize(stages[i]->tokens) == held[i]) continue;
    pending_ops.emplace_back(RewindSequence{slot, held[i], static_cast<StageIndex>(i)});
  }
  const Position longest = *std::max_element(held.begin(), held.end());
  if (longest == 0) return;
  tokens.resize(longest);
  slots.Adopt(slot, std::move(tokens), std::move(held), std::move(sent_from));
}

}  // namespace shoal
