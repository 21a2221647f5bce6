// Which layers of which model run where: what a person asks for, and what the nodes agreed on.
//
// An epoch names one version of one model's placement, for ever: (round << 32) | tag. The round is higher than every
// round its decider had seen; the tag is a hash of decider and incarnation, so that two parts of a divided cluster
// never make the same epoch. The higher epoch of a model wins wherever it becomes known.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "cluster/member.h"
#include "model/model_info.h"
#include "wire/tensor.h"

namespace shoal {

inline constexpr std::size_t kStagesMax = 128;     // of one placement
inline constexpr std::size_t kPlacementsMax = 64;  // models, the retired ones included
inline constexpr std::size_t kErrorTextBytesMax = 1024;
inline constexpr std::size_t kForecastTextBytesMax = 1024;
// Memory of a stage for the hidden states it sent, at most.
inline constexpr std::uint64_t kSentBytesMax = 256U << 20;

struct PlaceOptions {
  std::int32_t context_tokens = 0;  // KV cells; 0: 4096
  std::int32_t slots = 8;           // generations that run at once, 1 .. 256
  std::int32_t queue_max = 64;
  std::int32_t micro_batch_tokens = 64;
  WireType wire_type = WireType::kF16;
  KvType kv_type = KvType::kF16;
  bool flash_attention = true;
  bool reproducible = false;
  std::int32_t standby = 1;  // copies of each stage that other nodes keep ready where they have room
  bool operator==(const PlaceOptions&) const = default;
};
// A stage loaded for `a` serves `b` as it is.
bool IsSameEngine(const PlaceOptions& a, const PlaceOptions& b);
std::uint64_t OptionsHash(const PlaceOptions& options);  // equal where IsSameEngine

// What a placement is best at, where the rest of the request leaves a choice.
enum class PlaceGoal : std::uint8_t {
  kSpread = 0,      // a stage on every device, cut so that many streams at once are fastest
  kLatency = 1,     // one request, start to end, on as few or many devices as are best
  kThroughput = 2,  // many streams at once, likewise
  kEnergy = 3,      // the least energy of a request, at half the best speed at least, likewise
};
std::string_view PlaceGoalName(PlaceGoal goal);  // "spread", "latency", "throughput", "energy"

// What was asked for. It stays with the placement, so that whoever decides later can place the model again.
struct PlaceRequest {
  std::string model;               // ModelHolding::name
  std::uint64_t fingerprint = 0;   // 0: whichever file most members hold under that name
  ModelShape shape;                // empty: from a member's holding
  std::vector<NodeId> nodes;       // only these, in this order; empty: any holder
  std::int32_t stages = 0;         // how many; 0: as the split finds best
  std::vector<LayerRange> ranges;  // explicit; empty: computed. One per stage
  PlaceGoal goal = PlaceGoal::kSpread;
  PlaceOptions options;
  bool operator==(const PlaceRequest&) const = default;
};

inline constexpr std::int32_t kStandbyMax = 8;

// What the planner expects of a placement, as of when it was made.
struct PlacementForecast {
  double first_token_s = 0;  // of a prompt of kForecastPromptTokens
  double tokens_s = 0;       // one stream; 0: no forecast was made
  double tokens_s_many = 0;  // all slots busy, together
  bool measured = false;     // every device's speed for these weights was
  std::string reason;        // for people: why it is placed so, and what would be faster
  bool operator==(const PlacementForecast&) const = default;
};

// A node may have several stages of one placement.
struct StagePlace {
  NodeId node;
  std::uint64_t boot = 0;  // of the node when the stage was placed: a later start of it has no stage any more
  LayerRange layers;
  bool operator==(const StagePlace&) const = default;
};

// kPreparing is between the decider and the stages and never spreads; the other two do.
enum class PlacementState : std::uint8_t { kPreparing = 0, kLive = 1, kRetired = 2 };
std::string_view PlacementStateName(PlacementState state);  // "preparing", "live", "retired"

struct PlacementRecord {
  std::string model;
  Epoch epoch = 0;
  PlacementState state = PlacementState::kPreparing;
  std::uint32_t state_age_s = 0;  // of a retired one
  NodeId decider;
  // The epoch that it takes over from: a stage of it with the same node and layers goes on here with what it has loaded
  // and computed. 0: none.
  Epoch continues = 0;
  PlaceRequest request;
  std::vector<StagePlace> stages;  // [0] is the head; empty when retired
  PlacementForecast forecast;
  bool operator==(const PlacementRecord&) const = default;

  // The indices of `node`'s stages, ascending.
  std::vector<std::int32_t> StagesOf(const NodeId& node) const;
  bool Has(const NodeId& node) const { return !StagesOf(node).empty(); }
  LayerRange LayersOf(std::int32_t index) const { return stages[static_cast<std::size_t>(index)].layers; }
};

constexpr std::uint32_t EpochRound(Epoch epoch) { return static_cast<std::uint32_t>(epoch >> 32); }
// The epoch that `decider` makes in `round`.
Epoch MakeEpoch(std::uint32_t round, const NodeId& decider, std::uint64_t incarnation);

}  // namespace shoal
