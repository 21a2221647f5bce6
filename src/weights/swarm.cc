// One pass over the chunks for each choice: some ten thousand at most.
#include "weights/swarm.h"

#include <algorithm>

#include "base/check.h"

namespace shoal {

Swarm::Swarm(std::size_t chunks, std::uint64_t seed)
    : states_(chunks, State::kMissing), holders_(chunks), missing_(chunks), rng_(seed) {}

std::size_t Swarm::AddPeer() {
  Peer peer;
  peer.have.resize(states_.size());
  peer.asked.resize(states_.size());
  peers_.push_back(std::move(peer));
  return peers_.size() - 1;
}

void Swarm::SetHave(std::size_t peer, std::vector<bool> have) {
  SHOAL_CHECK(have.size() == states_.size());
  Peer& one = peers_[peer];
  if (one.dropped) return;
  for (std::size_t i = 0; i < have.size(); ++i) {
    if (have[i] && !one.have[i]) ++holders_[i];
    if (!have[i] && one.have[i]) --holders_[i];
  }
  one.have = std::move(have);
}

void Swarm::Drop(std::size_t peer) {
  SetHave(peer, std::vector<bool>(states_.size()));
  Peer& one = peers_[peer];
  one.dropped = true;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (one.asked[i] && states_[i] == State::kUnderWay) states_[i] = State::kMissing;
    one.asked[i] = false;
  }
}

std::optional<std::size_t> Swarm::Next(std::size_t peer) {
  Peer& one = peers_[peer];
  std::optional<std::size_t> best;
  std::uint32_t equal = 0;  // how many as rare as `best` were seen: each gets the same chance
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (states_[i] != State::kMissing || !one.have[i]) continue;
    if (best && holders_[i] > holders_[*best]) continue;
    if (!best || holders_[i] < holders_[*best]) equal = 0;
    ++equal;
    if (equal == 1 || rng_.Below(equal) == 0) best = i;
  }
  if (!best) return std::nullopt;
  states_[*best] = State::kUnderWay;
  one.asked[*best] = true;
  return best;
}

bool Swarm::Came(std::size_t peer, std::size_t chunk) {
  if (!peers_[peer].asked[chunk] || states_[chunk] != State::kUnderWay) return false;
  peers_[peer].asked[chunk] = false;
  states_[chunk] = State::kCame;
  return true;
}

void Swarm::Wrong(std::size_t chunk) {
  if (states_[chunk] == State::kCame) states_[chunk] = State::kMissing;
}

void Swarm::Done(std::size_t chunk) {
  if (states_[chunk] == State::kHere) return;
  states_[chunk] = State::kHere;
  --missing_;
}

void Swarm::Failed(std::size_t peer, std::size_t chunk) {
  Peer& one = peers_[peer];
  if (one.asked[chunk] && states_[chunk] == State::kUnderWay) states_[chunk] = State::kMissing;
  one.asked[chunk] = false;
  if (one.have[chunk]) {
    one.have[chunk] = false;
    --holders_[chunk];
  }
}

bool Swarm::hopeful() const {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (states_[i] == State::kUnderWay || states_[i] == State::kCame ||
        (states_[i] == State::kMissing && holders_[i] > 0))
      return true;
  }
  return false;
}

}  // namespace shoal
