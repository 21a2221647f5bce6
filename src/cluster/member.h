// What nodes know of each other: who is here, what the device is, which models it holds, how good its links are.
//
// Plain records and the rule by which two versions of one merge. Knows no messages and no time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "planner/device_speed.h"
#include "planner/observed_speed.h"

namespace shoal {

inline constexpr std::size_t kMembersMax = 256;         // tombstones included
inline constexpr std::size_t kNameBytesMax = 64;        // a device's name, an OS, an architecture
inline constexpr std::size_t kModelNameBytesMax = 256;  // also the key of a placement
inline constexpr std::size_t kAddressesMax = 16;        // of one member
inline constexpr std::size_t kAddressBytesMax = 160;    // a multiaddr or a URL
inline constexpr std::size_t kHoldingsMax = 32;         // models that one member tells others about
inline constexpr std::size_t kLayersMax = 1024;         // of one model
inline constexpr std::size_t kHoldingLayersMax = 4096;  // of all models of one member
inline constexpr std::size_t kHeldRangesMax = 64;       // of one model: more pieces are not told
inline constexpr std::size_t kMemberLinksMax = kMembersMax;
inline constexpr std::size_t kStandbyCopiesMax = 64;  // of one member
inline constexpr std::size_t kFetchingMax = 8;        // models that one member says it fetches layers of

inline constexpr std::size_t kObservedMax = 8;  // placements of which a member says what they give

inline constexpr std::size_t kSpeedsMax = 8;       // quantizations that a member has measured
inline constexpr std::size_t kStageSpeedsMax = 8;  // models whose stages it has measured
inline constexpr std::size_t kQuantizationBytesMax = 16;
inline constexpr std::size_t kCoreGroupsMax = 4;
inline constexpr std::size_t kOffloadDeviceBytesMax = 256,
                             kOffloadSaidBytesMax = 256;  // of the device's name, its text
inline constexpr double kBytesPerSecondMax = 1e14;        // less than the planner finds absurd
inline constexpr double kPaceMin = 0.01, kPaceMax = 4;
inline constexpr double kRestToldMax = 10;
inline constexpr double kWattsMax = 1e5;

// How fast the device's fast cores run weights of one quantization: engine/matrix_speed.h.
struct SpeedFacts {
  std::string quantization;                      // "Q4_0"
  double one_row_bytes_s = 0, rows_bytes_s = 0;  // weight bytes a second in passes of one row, of 64
  double operation_s = 0;                        // of one small operation
  bool operator==(const SpeedFacts&) const = default;
};

// How fast they run stages of one model: engine/stage_speed.h.
struct StageSpeedFacts {
  std::uint64_t fingerprint = 0;  // of the model
  MeasuredStageSpeed speed;
  bool operator==(const StageSpeedFacts&) const = default;
};

// Bytes a second that the cores of one kind read together.
struct CoreGroupFacts {
  std::string kind;  // "prime", "performance", "efficiency", "unknown"
  std::int32_t cores = 0;
  double bytes_s = 0;
  bool operator==(const CoreGroupFacts&) const = default;
};

// What a member's stages compute on beside its CPU.
enum class OffloadUse : std::uint8_t { kUntried, kComputes, kFailed };
struct OffloadFacts {
  std::string device;       // as its owner named it, "vulkan:1"; empty: the CPU alone, and nothing else is said
  std::int32_t layers = 0;  // of a stage, its last ones; 0: all
  OffloadUse use = OffloadUse::kUntried;
  std::string text;  // which it is, "Vulkan0: llvmpipe"; of one that failed why the CPU computes
  bool operator==(const OffloadFacts&) const = default;
};

// Of the node itself; speeds are measured once, `memory_free_bytes` now and then.
struct DeviceFacts {
  std::string os, arch;  // "linux", "aarch64"; with CPU variants "aarch64/armv8.6_0"
  std::int32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_free_bytes = 0;
  std::uint64_t memory_budget_bytes = 0;  // what shoal may fill with stages, all models together
  double memory_bytes_s = 0;              // read by its fast cores; 0: not measured, nor are the next
  std::vector<SpeedFacts> speeds;
  std::vector<StageSpeedFacts> stage_speeds;
  double ration = 1;                  // share of the time in which its cores may compute (a control group's quota);
                                      // the speeds are those while they do
  double pace = 1;                    // share of those speeds that its stages really reach of late
  std::int32_t battery_percent = -1;  // about; -1: none, or unknown
  double rest = 0;                    // seconds between micro-batches for each second of computing, for its heat
  std::string draining;               // why it takes no stages for now; empty: it does
  double idle_w = 0, active_w = 0;    // awake, and more while it computes; 0 both: unknown
  bool power_measured = false;        // of its battery (node/draw_meter.h); else by device/power_table.h
  bool on_battery = false;
  std::vector<CoreGroupFacts> groups;
  OffloadFacts offload;
  bool operator==(const DeviceFacts&) const = default;
};

// Sizes of one model, as far as a plan needs them.
struct ModelShape {
  std::vector<std::uint64_t> layer_bytes;  // [layers]: weights
  std::vector<std::uint32_t> kv_bytes;     // [layers]: K and V of one token as f16
  std::uint64_t output_bytes = 0;          // the output head, on the last stage
  std::uint32_t n_embd = 0;                // values of a hidden state
  std::vector<std::int32_t> cuts;          // allowed first layers of stages other than the first, ascending
  std::int32_t layers() const { return static_cast<std::int32_t>(layer_bytes.size()); }
  bool operator==(const ModelShape&) const = default;
};

// What a member has of a model's weights on its disk.
struct HeldWeights {
  std::vector<LayerRange> layers;  // ascending, apart from each other
  bool shared = false;             // what every stage needs; of the next two what the first needs, and the last.
  bool embeddings = false;         // Of what a model does not have everybody has all.
  bool output = false;
  std::uint64_t bytes = 0;
  bool sourced = false;  // what is not there can be had from where the model lies on the network
  bool operator==(const HeldWeights&) const = default;
};

// A model that a member knows: its header is there, and of its weights what `held` says.
struct ModelHolding {
  std::string name;               // as `shoal place` takes it; unique within the member
  std::uint64_t fingerprint = 0;  // equal only for equal files: stages of one placement come from one file
  std::uint64_t file_bytes = 0;
  std::string quantization;  // of most of its weights
  ModelShape shape;
  HeldWeights held;
  bool operator==(const ModelHolding&) const = default;
};

// A stage that a member keeps loaded, in case the one that runs it is lost.
struct StandbyCopy {
  std::string model;
  std::uint64_t fingerprint = 0;
  LayerRange layers;
  std::uint64_t options_hash = 0;  // of what its engine depends on (OptionsHash)
  bool operator==(const StandbyCopy&) const = default;
};

// Layers of a model on their way to a member, all that it wants of them together.
struct Fetching {
  std::string model;
  std::uint64_t bytes_done = 0, bytes_total = 0;
  bool operator==(const Fetching&) const = default;
};

// What a placement gives, by its head.
struct ObservedPlacement {
  std::string model;
  Epoch epoch = 0;
  ObservedSpeeds speeds;
  bool operator==(const ObservedPlacement&) const = default;
};

// What a member says of itself.
struct MemberFacts {
  std::string name;                    // for people
  bool owner = false;                  // holds the cluster's signing key
  bool leaving = false;                // wants to go, or to rest: gets no more stages, decides nothing
  std::vector<std::string> addresses;  // multiaddrs, best first
  std::string api;                     // "http://host:port", empty: none
  DeviceFacts device;
  std::vector<ModelHolding> models;
  std::vector<StandbyCopy> standby;  // ready
  std::vector<Fetching> fetching;    // by model
  std::vector<ObservedPlacement> observed;
  bool operator==(const MemberFacts&) const = default;
};

// One member's link to another, as that member measures it.
struct LinkFacts {
  NodeId to;
  std::uint32_t rtt_us = 0;       // smoothed (cluster/round_trips.h); 0: not measured yet
  std::uint64_t bytes_per_s = 0;  // 0: not measured yet
  bool operator==(const LinkFacts&) const = default;
};

// kSuspect is one node's own view and is never told to others; the other three spread.
enum class MemberState : std::uint8_t { kAlive = 0, kSuspect = 1, kDead = 2, kLeft = 3 };
std::string_view MemberStateName(MemberState state);  // "alive", "suspect", "dead", "left"

// Who a member is and what it says. Only the member itself changes `facts` and `links` (with their versions) and
// raises `incarnation`; others may only turn the state of an incarnation from alive to dead.
struct MemberRecord {
  NodeId id;
  std::uint64_t incarnation = 0;  // (boot << 16) | refutations
  std::uint32_t nonce = 0;        // random at each start: tells two starts with the same boot number apart
  MemberState state = MemberState::kAlive;
  std::uint32_t state_age_s = 0;  // how long ago a dead or left one became so
  std::uint32_t facts_version = 0;
  MemberFacts facts;
  std::uint32_t links_version = 0;
  std::vector<LinkFacts> links;
  std::uint64_t boot() const { return incarnation >> 16; }
  bool operator==(const MemberRecord&) const = default;
};

// Does (incarnation, state) `a` replace `b`? A later incarnation wins; within one, left over dead over alive.
bool Supersedes(std::uint64_t incarnation_a, MemberState state_a, std::uint64_t incarnation_b, MemberState state_b);

// A well-mixed 64-bit hash of two; of an id.
std::uint64_t MixHash(std::uint64_t a, std::uint64_t b);
std::uint64_t HashOf(const NodeId& id);
std::uint64_t HashOf(std::string_view text);

}  // namespace shoal
