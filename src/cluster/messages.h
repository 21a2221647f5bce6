// What nodes tell each other on their control stream, as structs and as frames of type kCluster.
//
// Every count is checked against a limit before anything is allocated; a frame is at most kClusterFrameBytesMax.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "cluster/member.h"
#include "cluster/placement_record.h"

namespace shoal {

inline constexpr std::size_t kClusterFrameBytesMax = 1U << 20;
inline constexpr std::size_t kClusterRevocationsMax = 1024;
inline constexpr std::size_t kClusterRevocationBytesMax = 512;

// Each side's first message on a new link.
struct Hello {
  MemberRecord self;         // without links
  std::uint64_t digest = 0;  // of everything the sender would spread
  bool operator==(const Hello&) const = default;
};

// "I am here", and the two stamps that give a round trip.
struct Heartbeat {
  std::uint32_t sequence = 0;
  std::uint32_t interval_ms = 0;  // until the next one
  std::uint64_t incarnation = 0;  // of the sender
  std::uint64_t digest = 0;
  std::int64_t stamp_us = 0;       // the sender's clock
  std::int64_t echo_us = 0;        // the stamp that came last from the receiver; 0: none
  std::uint32_t echo_held_us = 0;  // how long ago that was
  std::uint16_t lag_ms = 0;        // how late the sender's loop ran lately: slow, not frozen
  bool operator==(const Heartbeat&) const = default;
};

// Versions of everything the sender has. The receiver answers with a SyncDelta of what is newer here, and with a
// SyncAsk of its own when the sender has newer things (unless `is_answer`).
struct SyncAsk {
  struct Member {
    NodeId id;
    std::uint64_t incarnation = 0;
    std::uint32_t nonce = 0;
    MemberState state = MemberState::kAlive;
    std::uint32_t facts_version = 0, links_version = 0;
    bool operator==(const Member&) const = default;
  };
  struct Placement {
    std::uint64_t model_hash = 0;
    Epoch epoch = 0;
    bool operator==(const Placement&) const = default;
  };
  bool is_answer = false;
  std::vector<Member> members;
  std::vector<Placement> placements;
  std::vector<std::uint64_t> revocations;  // hashes
  bool operator==(const SyncAsk&) const = default;
};

// News. The receiver takes what supersedes its own.
struct SyncDelta {
  struct Member {
    MemberRecord record;
    bool has_facts = false, has_links = false;
    bool operator==(const Member&) const = default;
  };
  std::vector<Member> members;
  std::vector<PlacementRecord> placements;  // live or retired
  std::vector<std::vector<std::uint8_t>> revocations;
  bool operator==(const SyncDelta&) const = default;
};

// "Do you hear `subject`?", asked before it is declared dead; and the answer.
enum class Hearing : std::uint8_t {
  kHeard = 0,
  kSilent = 1,    // the link is up, nothing comes
  kClosed = 2,    // the link ended, none has come up since
  kUnlinked = 3,  // there never was a link: no evidence
};
struct HearsAsk {
  NodeId subject;
  std::uint32_t round = 0;
  bool operator==(const HearsAsk&) const = default;
};
struct HearsAnswer {
  NodeId subject;
  std::uint32_t round = 0;
  Hearing hearing = Hearing::kUnlinked;
  bool operator==(const HearsAnswer&) const = default;
};

// A wish passed on to whoever decides; repeated until answered. (origin, id) names it.
struct PlaceAsk {
  std::uint64_t id = 0;
  bool unplace = false;
  PlaceRequest request;  // of an unplace only `model` counts
  bool operator==(const PlaceAsk&) const = default;
};
struct PlaceAnswer {
  std::uint64_t id = 0;
  bool decides = true;  // false: "I do not decide, ask again"
  bool ok = false;
  ErrorCode code = ErrorCode::kInternal;  // when not ok
  std::string text;
  Epoch epoch = 0;
  bool operator==(const PlaceAnswer&) const = default;
};

// The decider asks a stage's node to load it; repeated while it is being prepared.
struct Prepare {
  PlacementRecord placement;
  bool operator==(const Prepare&) const = default;
};
// The decider gives this epoch up before it went live.
struct Abort {
  std::string model;
  Epoch epoch = 0;
  bool operator==(const Abort&) const = default;
};

enum class StageStatus : std::uint8_t {
  kLoading = 1,
  kReady = 2,
  kFailed = 3,   // could not be loaded
  kStale = 4,    // refused: `known` is the newer epoch
  kLost = 5,     // a live placement names a stage here that is not (no longer) here
  kBroken = 6,   // the stage is here, but its links to the others of a live placement are not
  kUnheard = 7,  // the stage is here, but does not hear the node of stage `known`, which others hear
};
struct StageNews {
  std::string model;
  Epoch epoch = 0;
  std::int32_t stage = 0;
  StageStatus status = StageStatus::kLoading;
  Epoch known = 0;
  std::string text;
  bool operator==(const StageNews&) const = default;
};

// The decider asks a node to load a copy of a stage of the live placement, in case that stage is lost. Repeated until
// the node's facts name the copy, or for a while.
struct StandbyAsk {
  std::string model;
  Epoch epoch = 0;
  std::int32_t stage = 0;
  bool operator==(const StandbyAsk&) const = default;
};

// To a member that leaves: its layers of `model` fit nowhere else.
struct MoveFailed {
  std::string model;
  Epoch epoch = 0;
  std::string text;
  bool operator==(const MoveFailed&) const = default;
};

using ClusterMessage = std::variant<Hello, Heartbeat, SyncAsk, SyncDelta, HearsAsk, HearsAnswer, PlaceAsk, PlaceAnswer,
                                    Prepare, Abort, StageNews, StandbyAsk, MoveFailed>;

// A whole frame (wire/frame.h). Precondition (CHECK): within the limits; Cluster sends nothing else.
std::vector<std::uint8_t> EncodeClusterMessage(const ClusterMessage& message);
// Checks frame and contents: ids sorted nowhere assumed, ranges sane (0 <= first < last <= kLayersMax, and those of a
// placement's stages within its model), enums known.
// Allocates at most a small multiple of bytes.size(). Errors: kCorrupt, kUnsupported (another wire version).
Result<ClusterMessage> DecodeClusterMessage(std::span<const std::uint8_t> bytes);

}  // namespace shoal
