// What grew within 3 ms travels together; a keeper that is lost shows when something is to be sent.
#include "sim/keeping.h"

#include <algorithm>
#include <utility>

#include "runtime/rng.h"
#include "sim/host.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kBatchUs = 3 * kMillisecond, kKeeperAgainUs = 1 * kSecond, kOpenUs = 1 * kSecond;

}  // namespace

SimKeeping::SimKeeping(Network& network, SimAnswers& answers, int self)
    : network_(network), answers_(answers), self_(self) {
  answers_.Watch([this] { OnChange(); });
}

void SimKeeping::SetMembers(std::vector<KeepingMember> members) {
  members_ = std::move(members);
  refused_.clear();
  const bool still = std::any_of(members_.begin(), members_.end(),
                                 [&](const KeepingMember& member) { return member.node == keeper_.node; });
  if (keeper_.up && !still) Lose();
}

void SimKeeping::Lose() {
  network_.Close(self_, keeper_.stream);
  keeper_ = {};
}

// ---- Copies of what is answered here --------------------------------------------------------------------------------

void SimKeeping::OnChange() {
  changed_ = true;
  if (std::exchange(copying_, true)) return;
  network_.Post(self_, kBatchUs, [this] { Copy(); });
}

void SimKeeping::Copy() {
  changed_ = false;
  const std::vector<SimAnswerPtr> grown = answers_.TakeChanged();
  if (!keeper_.up) return OpenKeeper();
  copying_ = false;
  for (const SimAnswerPtr& answer : grown) SendGrown(*answer);
}

// Each node its own order of the others, so that not all choose the same one.
std::optional<int> SimKeeping::ChooseKeeper() const {
  const NodeId self = NodeIdOf(self_);
  const auto order = [&](int node) {
    std::uint64_t mixed = 0;
    for (std::size_t i = 0; i < 8; ++i) mixed = mixed << 8 | (NodeIdOf(node).bytes[i] ^ self.bytes[i]);
    return CounterRandom(mixed, 0);
  };
  const KeepingMember* best = nullptr;
  for (const KeepingMember& member : members_) {
    if (!member.alive || refused_.contains(member.node)) continue;
    const bool better = best == nullptr || member.models > best->models ||
                        (member.models == best->models && order(member.node) > order(best->node));
    if (better) best = &member;
  }
  return best == nullptr ? std::nullopt : std::optional<int>(best->node);
}

// Until it is open nothing is copied.
void SimKeeping::OpenKeeper() {
  const std::optional<int> chosen = ChooseKeeper();
  if (!chosen) {  // those that could not be reached may be there in a while; it is tried again while anything grows
    network_.Post(self_, kKeeperAgainUs, [this] {
      refused_.clear();
      copying_ = false;
      if (changed_) OnChange();
    });
    return;
  }
  keeper_ = {};
  keeper_.node = *chosen;
  const StreamId stream = keeper_.stream = network_.Open(self_, *chosen, Protocol::kKeep);
  network_.Post(self_, kOpenUs, [this, stream] {
    if (keeper_.stream == stream && !keeper_.up) OnStreamEnd(stream);
  });
}

void SimKeeping::OnOpened(StreamId stream) {
  if (stream != keeper_.stream) return;
  keeper_.up = true;
  copying_ = false;
  for (const SimAnswerPtr& answer : answers_.InUse()) SendGrown(*answer);
  OnChange();  // what grew meanwhile
}

void SimKeeping::SendGrown(const SimAnswer& answer) {
  if (answer.is_copy) return;
  const auto [at, is_new] = keeper_.sent.try_emplace(answer.record.id);
  Sent& sent = at->second;
  if (is_new) {
    sent.number = ++keeper_.last_number;
    network_.Send(self_, keeper_.stream, EncodeAnswerMessage(AnswerCopy{sent.number, answer.record}));
  }
  if (sent.entries < answer.log.size()) {
    AnswerEntries entries{sent.number, static_cast<std::uint32_t>(sent.entries), {}};
    entries.entries.assign(answer.log.begin() + static_cast<std::ptrdiff_t>(sent.entries), answer.log.end());
    sent.entries = answer.log.size();
    network_.Send(self_, keeper_.stream, EncodeAnswerMessage(entries));
  }
  if (answer.state == SimAnswer::State::kEnded) keeper_.sent.erase(at);
}

// ---- Copies of others -----------------------------------------------------------------------------------------------

void SimKeeping::OnFrame(StreamId stream, const FrameBytes& frame) {
  const auto kept = kept_.find(stream);
  if (kept == kept_.end()) return;  // nothing comes back from a keeper
  Result<AnswerMessage> message = DecodeAnswerMessage(frame);
  SHOAL_CHECK(message.ok());
  if (auto* copy = std::get_if<AnswerCopy>(&*message)) {
    kept->second[copy->number] = answers_.AddCopy(std::move(copy->record));
    return;
  }
  const auto* entries = std::get_if<AnswerEntries>(&*message);
  SHOAL_CHECK(entries != nullptr);
  const auto found = kept->second.find(entries->number);
  if (found == kept->second.end() || found->second == nullptr) return;
  if (answers_.Receive(found->second, entries->first, entries->entries)) return;
  kept_.erase(kept);
  network_.Close(self_, stream);
}

void SimKeeping::OnStreamEnd(StreamId stream) {
  if (kept_.erase(stream) > 0) return;
  if (!keeper_.up) {
    refused_.insert(keeper_.node);
    Lose();
    return OpenKeeper();
  }
  keeper_ = {};  // its next answer finds another one
}

}  // namespace shoal::sim
