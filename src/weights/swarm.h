// Which chunk to ask of which peer next: the rarest of those it has, so that what only one peer has spreads first.
//
// A peer that is free asks again, so the fastest does the most. Among equally rare ones the choice is random, so that
// nodes that fetch the same at the same time ask for different chunks and can give them to each other. The order of
// layers does not matter: a stage starts when it has all of its own. Pure: no clock, no I/O, no lock.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/rng.h"

namespace shoal {

class Swarm {
 public:
  // Chunks are 0 .. chunks-1, all of them missing.
  Swarm(std::size_t chunks, std::uint64_t seed);

  std::size_t AddPeer();
  // What `peer` has, chunk by chunk ([chunks]). It may have fewer than before.
  void SetHave(std::size_t peer, std::vector<bool> have);
  // Nothing more is asked of it; what it was asked for is free again.
  void Drop(std::size_t peer);
  // A chunk to ask `peer` for, now under way; nothing when it has none that is wanted.
  std::optional<std::size_t> Next(std::size_t peer);
  // `peer` has sent it: nobody else is asked for it until it is Done or Wrong. False: it is not wanted from this peer
  // any more, which was dropped meanwhile.
  bool Came(std::size_t peer, std::size_t chunk);
  void Done(std::size_t chunk);   // it is here
  void Wrong(std::size_t chunk);  // what came was something else: it is missing as before
  // It did not come: this peer is taken not to have it.
  void Failed(std::size_t peer, std::size_t chunk);

  bool done() const { return missing_ == 0; }
  // Whether a peer has a chunk that is missing and not under way, or one is under way or has come.
  bool hopeful() const;

 private:
  enum class State : std::uint8_t { kMissing, kUnderWay, kCame, kHere };
  struct Peer {
    bool dropped = false;
    std::vector<bool> have, asked;  // [chunks]
  };

  std::vector<State> states_;           // [chunks]
  std::vector<std::uint32_t> holders_;  // [chunks]: peers that have it
  std::vector<Peer> peers_;
  std::size_t missing_ = 0;
  Rng rng_;
};

}  // namespace shoal
