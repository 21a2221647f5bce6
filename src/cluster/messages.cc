// Cluster messages to frames and back. One list of fields per struct serves both directions, so they cannot differ.
#include "cluster/messages.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "wire/bytes.h"
#include "wire/frame.h"
#include "wire/messages.h"

namespace shoal {
namespace {

Error Corrupt(const char* what) { return {ErrorCode::kCorrupt, std::string("broken cluster message: ") + what}; }

// Both archives: Num, Flag, Enum, Text, Id, Blob and List, each over a field that is read or written.
class Writer {
 public:
  explicit Writer(std::vector<std::uint8_t>& bytes) : out_(bytes) {}
  template <typename T>
  void Num(T& value) {
    out_.Put(value);
  }
  void Flag(bool& value) { out_.Put(static_cast<std::uint8_t>(value)); }
  template <typename T>
  void Enum(T& value, T) {
    out_.Put(static_cast<std::uint8_t>(value));
  }
  void Text(std::string& text, std::size_t bytes_max) {
    SHOAL_CHECK(text.size() <= bytes_max);
    out_.Put(static_cast<std::uint32_t>(text.size()));
    out_.PutText(text);
  }
  void Blob(std::vector<std::uint8_t>& bytes, std::size_t bytes_max) {
    SHOAL_CHECK(bytes.size() <= bytes_max);
    out_.Put(static_cast<std::uint32_t>(bytes.size()));
    out_.PutArray(std::span<const std::uint8_t>(bytes));
  }
  void Id(NodeId& id) { out_.PutArray(std::span<const std::uint8_t>(id.bytes)); }
  template <typename T, typename F>
  void List(std::vector<T>& items, std::size_t count_max, std::size_t, F&& each) {
    SHOAL_CHECK(items.size() <= count_max);
    out_.Put(static_cast<std::uint32_t>(items.size()));
    for (T& item : items) each(item);
  }
  void Require(bool holds) { SHOAL_CHECK(holds); }

 private:
  ByteWriter out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : in_(bytes) {}
  bool AtEnd() const { return in_.AtEnd(); }
  template <typename T>
  void Num(T& value) {
    value = in_.Get<T>();
  }
  void Flag(bool& value) {
    const auto byte = in_.Get<std::uint8_t>();
    Require(byte <= 1);
    value = byte == 1;
  }
  template <typename T>
  void Enum(T& value, T last) {
    const auto byte = in_.Get<std::uint8_t>();
    Require(byte <= static_cast<std::uint8_t>(last));
    if (byte <= static_cast<std::uint8_t>(last)) value = static_cast<T>(byte);
  }
  void Text(std::string& text, std::size_t bytes_max) {
    text = in_.GetText(in_.GetCount(static_cast<std::uint32_t>(bytes_max), 1));
  }
  void Blob(std::vector<std::uint8_t>& bytes, std::size_t bytes_max) {
    bytes = in_.GetArray<std::uint8_t>(in_.GetCount(static_cast<std::uint32_t>(bytes_max), 1));
  }
  void Id(NodeId& id) {
    const auto bytes = in_.Take(id.bytes.size());
    if (!bytes.empty()) std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
  }
  // Grows item by item: a count that the bytes cannot hold allocates nothing.
  template <typename T, typename F>
  void List(std::vector<T>& items, std::size_t count_max, std::size_t item_bytes_min, F&& each) {
    const std::uint32_t count = in_.GetCount(static_cast<std::uint32_t>(count_max), item_bytes_min);
    for (std::uint32_t i = 0; i < count && !in_.failed(); ++i) each(items.emplace_back());
  }
  void Require(bool holds) {
    if (!holds) in_.Fail();
  }

 private:
  ByteReader in_;
};

// A number from `least` to `most`, both included.
template <typename A, typename T>
void Bounded(A& io, T& value, std::type_identity_t<T> least, std::type_identity_t<T> most) {
  io.Num(value);
  io.Require(value >= least && value <= most);
}

template <typename A>
void Fields(A& io, LayerRange& range) {
  io.Num(range.first);
  io.Num(range.last);
  io.Require(0 <= range.first && range.first < range.last && range.last <= static_cast<std::int32_t>(kLayersMax));
}

template <typename A>
void Fields(A& io, ModelShape& shape) {
  io.List(shape.layer_bytes, kLayersMax, 8, [&](auto& v) { io.Num(v); });
  io.List(shape.kv_bytes, kLayersMax, 4, [&](auto& v) { io.Num(v); });
  io.Num(shape.output_bytes);
  io.Num(shape.n_embd);
  io.List(shape.cuts, kLayersMax, 4, [&](auto& v) { io.Num(v); });
  bool is_sane = shape.kv_bytes.size() == shape.layer_bytes.size();
  std::int32_t before = 0;
  for (const std::int32_t cut : shape.cuts) {
    is_sane = is_sane && cut > before && cut < shape.layers();
    before = cut;
  }
  for (const std::uint64_t bytes : shape.layer_bytes) is_sane = is_sane && bytes <= (1ULL << 48);
  io.Require(is_sane && shape.output_bytes <= (1ULL << 48) && shape.n_embd <= kEmbdMax);
}

template <typename A>
void Fields(A& io, HeldWeights& held, std::int32_t layers) {
  std::int32_t free_from = 0;
  io.List(held.layers, kHeldRangesMax, 8, [&](LayerRange& range) {
    Fields(io, range);
    io.Require(range.first >= free_from && range.last <= layers);
    free_from = range.last + 1;
  });
  io.Flag(held.shared);
  io.Flag(held.embeddings);
  io.Flag(held.output);
  Bounded(io, held.bytes, 0, 1ULL << 48);
  io.Flag(held.sourced);
}

template <typename A>
void Speeds(A& io, DeviceFacts& device) {
  const auto rate = [&](double& value) { Bounded(io, value, 1, kBytesPerSecondMax); };
  io.Num(device.memory_bytes_s);
  io.Require(device.memory_bytes_s == 0 || (device.memory_bytes_s >= 1 && device.memory_bytes_s <= kBytesPerSecondMax));
  io.List(device.speeds, kSpeedsMax, 28, [&](SpeedFacts& speed) {
    io.Text(speed.quantization, kQuantizationBytesMax);
    rate(speed.one_row_bytes_s);
    rate(speed.rows_bytes_s);
    Bounded(io, speed.operation_s, 0, 1);
  });
  io.Require(device.speeds.empty() || device.memory_bytes_s > 0);
  io.List(device.stage_speeds, kStageSpeedsMax, 112, [&](StageSpeedFacts& one) {
    io.Num(one.fingerprint);
    MeasuredStageSpeed& speed = one.speed;
    Bounded(io, speed.pass_s, 0, 1);
    for (double* const value : RatesOf(speed)) rate(*value);
    Bounded(io, speed.token_s, 0, 1);
  });
  io.Num(device.ration);
  io.Require(device.ration > 0 && device.ration <= 1);
  Bounded(io, device.pace, kPaceMin, kPaceMax);
  Bounded(io, device.battery_percent, -1, 100);
  Bounded(io, device.rest, 0, kRestToldMax);
  io.Text(device.draining, kNameBytesMax);
  Bounded(io, device.idle_w, 0, kWattsMax);
  Bounded(io, device.active_w, 0, kWattsMax);
  io.Flag(device.power_measured);
  io.Flag(device.on_battery);
  io.List(device.groups, kCoreGroupsMax, 16, [&](CoreGroupFacts& group) {
    io.Text(group.kind, kNameBytesMax);
    io.Num(group.cores);
    rate(group.bytes_s);
    io.Require(group.cores >= 0);
  });
  OffloadFacts& offload = device.offload;
  io.Text(offload.device, kOffloadDeviceBytesMax);
  Bounded(io, offload.layers, 0, static_cast<std::int32_t>(kLayersMax));
  io.Enum(offload.use, OffloadUse::kFailed);
  io.Text(offload.text, kOffloadSaidBytesMax);
}

template <typename A>
void Fields(A& io, MemberFacts& facts) {
  io.Text(facts.name, kNameBytesMax);
  io.Flag(facts.owner);
  io.Flag(facts.leaving);
  io.List(facts.addresses, kAddressesMax, 4, [&](std::string& v) { io.Text(v, kAddressBytesMax); });
  io.Text(facts.api, kAddressBytesMax);
  DeviceFacts& device = facts.device;
  io.Text(device.os, kNameBytesMax);
  io.Text(device.arch, kNameBytesMax);
  io.Num(device.cores);
  io.Num(device.memory_bytes);
  io.Num(device.memory_free_bytes);
  io.Num(device.memory_budget_bytes);
  Speeds(io, device);
  io.Require(device.cores >= 0);
  std::size_t layers = 0;
  io.List(facts.models, kHoldingsMax, 55, [&](ModelHolding& model) {
    io.Text(model.name, kModelNameBytesMax);
    io.Num(model.fingerprint);
    io.Num(model.file_bytes);
    io.Text(model.quantization, kQuantizationBytesMax);
    Fields(io, model.shape);
    Fields(io, model.held, model.shape.layers());
    layers += model.shape.layer_bytes.size();
    io.Require(layers <= kHoldingLayersMax);
  });
  io.List(facts.standby, kStandbyCopiesMax, 28, [&](StandbyCopy& copy) {
    io.Text(copy.model, kModelNameBytesMax);
    io.Num(copy.fingerprint);
    Fields(io, copy.layers);
    io.Num(copy.options_hash);
  });
  io.List(facts.fetching, kFetchingMax, 20, [&](Fetching& one) {
    io.Text(one.model, kModelNameBytesMax);
    io.Num(one.bytes_done);
    io.Num(one.bytes_total);
    io.Require(one.bytes_done <= one.bytes_total && one.bytes_total <= (1ULL << 48));
  });
  io.List(facts.observed, kObservedMax, 44, [&](ObservedPlacement& one) {
    io.Text(one.model, kModelNameBytesMax);
    io.Num(one.epoch);
    ObservedSpeeds& speeds = one.speeds;
    for (double* const value : {&speeds.tokens_s, &speeds.tokens_s_many, &speeds.streams, &speeds.prompt_tokens_s}) {
      Bounded(io, *value, 0, kBytesPerSecondMax);
    }
  });
}

template <typename A>
void Head(A& io, MemberRecord& record) {
  io.Id(record.id);
  io.Num(record.incarnation);
  io.Num(record.nonce);
  io.Enum(record.state, MemberState::kLeft);
  io.Require(record.state != MemberState::kSuspect);  // one node's own view: never spreads
  io.Num(record.state_age_s);
}

template <typename A>
void Facts(A& io, MemberRecord& record) {
  io.Num(record.facts_version);
  Fields(io, record.facts);
}

template <typename A>
void Links(A& io, MemberRecord& record) {
  io.Num(record.links_version);
  io.List(record.links, kMemberLinksMax, 44, [&](LinkFacts& link) {
    io.Id(link.to);
    io.Num(link.rtt_us);
    Bounded(io, link.bytes_per_s, 0, static_cast<std::uint64_t>(kBytesPerSecondMax));
  });
}

template <typename A>
void Fields(A& io, PlaceRequest& request) {
  io.Text(request.model, kModelNameBytesMax);
  io.Num(request.fingerprint);
  Fields(io, request.shape);
  io.List(request.nodes, kStagesMax, 32, [&](NodeId& v) { io.Id(v); });
  Bounded(io, request.stages, 0, static_cast<std::int32_t>(kStagesMax));
  io.List(request.ranges, kStagesMax, 8, [&](LayerRange& v) { Fields(io, v); });
  io.Enum(request.goal, PlaceGoal::kEnergy);
  PlaceOptions& o = request.options;
  Bounded(io, o.context_tokens, 0, 1 << 20);
  Bounded(io, o.slots, 1, 256);
  Bounded(io, o.queue_max, 0, 1 << 16);
  Bounded(io, o.micro_batch_tokens, 1, 4096);
  io.Enum(o.wire_type, WireType::kBf16);
  io.Enum(o.kv_type, KvType::kQ8_0);
  io.Flag(o.flash_attention);
  io.Flag(o.reproducible);
  Bounded(io, o.standby, 0, kStandbyMax);
}

template <typename A>
void Fields(A& io, PlacementForecast& forecast) {
  for (double* const value : {&forecast.first_token_s, &forecast.tokens_s, &forecast.tokens_s_many}) {
    Bounded(io, *value, 0, kBytesPerSecondMax);
  }
  io.Flag(forecast.measured);
  io.Text(forecast.reason, kForecastTextBytesMax);
}

template <typename A>
void Fields(A& io, PlacementRecord& record) {
  io.Text(record.model, kModelNameBytesMax);
  io.Num(record.epoch);
  io.Enum(record.state, PlacementState::kRetired);
  io.Num(record.state_age_s);
  io.Id(record.decider);
  io.Num(record.continues);
  Fields(io, record.request);
  io.List(record.stages, kStagesMax, 48, [&](StagePlace& stage) {
    io.Id(stage.node);
    io.Num(stage.boot);
    Fields(io, stage.layers);
  });
  Fields(io, record.forecast);
  bool is_whole = (record.state == PlacementState::kRetired) == record.stages.empty();
  std::int32_t next = 0;
  for (const StagePlace& stage : record.stages) {
    is_whole = is_whole && stage.layers.first == next;
    next = stage.layers.last;
  }
  io.Require(is_whole && next <= record.request.shape.layers());
}

template <typename A>
void Fields(A& io, Hello& m) {
  Head(io, m.self);
  Facts(io, m.self);
  io.Num(m.digest);
}

template <typename A>
void Fields(A& io, Heartbeat& m) {
  io.Num(m.sequence);
  io.Num(m.interval_ms);
  io.Num(m.incarnation);
  io.Num(m.digest);
  io.Num(m.stamp_us);
  io.Num(m.echo_us);
  io.Num(m.echo_held_us);
  io.Num(m.lag_ms);
}

template <typename A>
void Fields(A& io, SyncAsk& m) {
  io.Flag(m.is_answer);
  io.List(m.members, kMembersMax, 53, [&](SyncAsk::Member& v) {
    io.Id(v.id);
    io.Num(v.incarnation);
    io.Num(v.nonce);
    io.Enum(v.state, MemberState::kLeft);
    io.Num(v.facts_version);
    io.Num(v.links_version);
  });
  io.List(m.placements, kPlacementsMax, 16, [&](SyncAsk::Placement& v) {
    io.Num(v.model_hash);
    io.Num(v.epoch);
  });
  io.List(m.revocations, kClusterRevocationsMax, 8, [&](std::uint64_t& v) { io.Num(v); });
}

template <typename A>
void Fields(A& io, SyncDelta& m) {
  io.List(m.members, kMembersMax, 51, [&](SyncDelta::Member& v) {
    Head(io, v.record);
    io.Flag(v.has_facts);
    io.Flag(v.has_links);
    if (v.has_facts) Facts(io, v.record);
    if (v.has_links) Links(io, v.record);
  });
  io.List(m.placements, kPlacementsMax, 72, [&](PlacementRecord& v) {
    Fields(io, v);
    io.Require(v.state != PlacementState::kPreparing);  // between the decider and the stages alone
  });
  io.List(m.revocations, kClusterRevocationsMax, 4, [&](auto& v) { io.Blob(v, kClusterRevocationBytesMax); });
}

template <typename A>
void Fields(A& io, HearsAsk& m) {
  io.Id(m.subject);
  io.Num(m.round);
}

template <typename A>
void Fields(A& io, HearsAnswer& m) {
  io.Id(m.subject);
  io.Num(m.round);
  io.Enum(m.hearing, Hearing::kUnlinked);
}

template <typename A>
void Fields(A& io, PlaceAsk& m) {
  io.Num(m.id);
  io.Flag(m.unplace);
  Fields(io, m.request);
}

template <typename A>
void Fields(A& io, PlaceAnswer& m) {
  io.Num(m.id);
  io.Flag(m.decides);
  io.Flag(m.ok);
  io.Enum(m.code, ErrorCode::kInternal);
  io.Text(m.text, kErrorTextBytesMax);
  io.Num(m.epoch);
}

template <typename A>
void Fields(A& io, Prepare& m) {
  Fields(io, m.placement);
  io.Require(m.placement.state == PlacementState::kPreparing);
}

// Abort, StandbyAsk, MoveFailed and StageNews all begin with a model and its epoch.
template <typename A, typename M>
void ModelEpoch(A& io, M& m) {
  io.Text(m.model, kModelNameBytesMax);
  io.Num(m.epoch);
}

template <typename A>
void Fields(A& io, Abort& m) {
  ModelEpoch(io, m);
}

template <typename A>
void Fields(A& io, StageNews& m) {
  ModelEpoch(io, m);
  Bounded(io, m.stage, 0, static_cast<std::int32_t>(kStagesMax) - 1);
  io.Enum(m.status, StageStatus::kUnheard);
  io.Require(static_cast<std::uint8_t>(m.status) >= 1);
  io.Num(m.known);
  io.Text(m.text, kErrorTextBytesMax);
}

template <typename A>
void Fields(A& io, StandbyAsk& m) {
  ModelEpoch(io, m);
  Bounded(io, m.stage, 0, static_cast<std::int32_t>(kStagesMax) - 1);
}

template <typename A>
void Fields(A& io, MoveFailed& m) {
  ModelEpoch(io, m);
  io.Text(m.text, kErrorTextBytesMax);
}

// The alternative number `kind` of the variant, read from `in`.
template <std::size_t I = 0>
Result<ClusterMessage> DecodeKind(std::size_t kind, std::span<const std::uint8_t> bytes) {
  if constexpr (I < std::variant_size_v<ClusterMessage>) {
    if (kind != I) return DecodeKind<I + 1>(kind, bytes);
    std::variant_alternative_t<I, ClusterMessage> message;
    Reader in(bytes);
    Fields(in, message);
    if (!in.AtEnd()) return Corrupt("too long, too short or out of range");
    return ClusterMessage(std::move(message));
  } else {
    return Corrupt("an unknown kind");
  }
}

}  // namespace

std::vector<std::uint8_t> EncodeClusterMessage(const ClusterMessage& message) {
  std::vector<std::uint8_t> frame(kFrameHeaderBytes);
  frame.push_back(static_cast<std::uint8_t>(message.index()));
  Writer out(frame);
  // A field list takes its struct by reference for both directions; the writer changes nothing.
  std::visit([&](const auto& m) { Fields(out, const_cast<std::remove_cvref_t<decltype(m)>&>(m)); }, message);
  SHOAL_CHECK(frame.size() <= kClusterFrameBytesMax);
  SealFrame(FrameType::kCluster, 0, frame);
  return frame;
}

Result<ClusterMessage> DecodeClusterMessage(std::span<const std::uint8_t> bytes) {
  if (bytes.size() > kClusterFrameBytesMax) return Corrupt("longer than the limit");
  SHOAL_ASSIGN_OR_RETURN(const FrameHeader header, ParseFrame(bytes));
  if (header.type != FrameType::kCluster || header.epoch != 0) return Corrupt("a frame of another type");
  const std::span<const std::uint8_t> payload = FramePayload(bytes);
  if (payload.empty()) return Corrupt("empty");
  return DecodeKind(payload[0], payload.subspan(1));
}

}  // namespace shoal
