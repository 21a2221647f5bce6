// At the decider: a placement whose devices have become slower or faster than planned is placed anew, if that pays.
//
// Members tell what share of their measured speed they reach (DeviceFacts::pace), and what share of the time they may
// compute (DeviceFacts::ration). The plan for the speeds of now must be better by kGainMin, for kGainLastsUs, and by
// enough to pay for what has to be loaded. After a move the placement is left alone, each time longer when moves follow
// each other: devices that go up and down do not drag it along.
#include <algorithm>
#include <cstdio>

#include "cluster/split.h"
#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kLookEveryUs = 1'000'000;
constexpr double kGainMin = 1.25;
constexpr DurationUs kGainLastsUs = 4'000'000;
constexpr DurationUs kRestMinUs = 30'000'000, kRestMaxUs = 480'000'000;  // after a move
constexpr double kLoadBytesPerSecond = 100e6;                            // of a phone's flash, with what comes after
constexpr double kHorizon_s = 120;  // what a move costs has to come back within this

// Of a stage's weights, those that are not on a disk which has `held`.
double LackingBytes(const ModelShape& shape, LayerRange layers, const HeldWeights& held) {
  double bytes = 0;
  for (std::int32_t i = layers.first; i < layers.last; ++i) {
    const bool here = std::any_of(held.layers.begin(), held.layers.end(),
                                  [&](const LayerRange& range) { return range.first <= i && i < range.last; });
    bytes += here ? 0 : static_cast<double>(shape.layer_bytes[static_cast<std::size_t>(i)]);
  }
  return bytes + (layers.last == shape.layers() && !held.output ? static_cast<double>(shape.output_bytes) : 0);
}

}  // namespace

// Every node of it was measured, and what was asked leaves a choice.
bool Cluster::State::MayReplan(const PlacementRecord& record) const {
  return record.request.ranges.empty() && std::all_of(record.stages.begin(), record.stages.end(), [&](const auto& one) {
           const auto member = members.find(one.node);
           if (member == members.end()) return false;
           const DeviceFacts& device = member->second.record.facts.device;
           return device.memory_bytes_s > 0 || !device.stage_speeds.empty();
         });
}

// Until nodes have got and loaded the layers that they do not have now, all at the same time. What one lacks comes by
// its fastest link, from wherever.
double Cluster::State::MoveSeconds(const PlacementRecord& before, const PlacementRecord& after) const {
  const PlaceRequest& request = after.request;
  double longest = 0;
  for (const StagePlace& stage : after.stages) {
    if (std::find(before.stages.begin(), before.stages.end(), stage) != before.stages.end()) continue;
    const ModelHolding* holding = HoldingOf(members.at(stage.node).record.facts, request.fingerprint);
    const double lacks = LackingBytes(request.shape, stage.layers, holding != nullptr ? holding->held : HeldWeights());
    double link_bytes_s = 0;
    for (const auto& [id, member] : members) {
      if (id != stage.node && member.here()) {
        link_bytes_s = std::max(link_bytes_s, LinkBetween(id, stage.node).bytes_s);
      }
    }
    if (link_bytes_s <= 0) link_bytes_s = kUnmeasuredLink.bytes_s;
    const auto bytes = static_cast<double>(StageBytes(request.shape, stage.layers, request.options));
    longest = std::max(longest, lacks / link_bytes_s + bytes / kLoadBytesPerSecond);
  }
  return longest;
}

void Cluster::State::CareForPace() {
  if (now < pace_due) return;
  pace_due = now + kLookEveryUs;
  if (!IsSelf(Decider())) return replans.clear();
  std::erase_if(replans, [&](const auto& entry) { return !placements.contains(entry.first); });
  std::vector<std::string> models;
  for (const auto& [model, placed] : placements) {
    const auto cared = care.find(model);
    const bool calm = cared == care.end() || cared->second.problem.empty();
    if (placed.record.state == PlacementState::kLive && calm && !deciding.contains(model)) models.push_back(model);
  }
  for (const std::string& model : models) LookAtPace(model, replans[model]);
}

void Cluster::State::LookAtPace(const std::string& model, Replan& one) {
  const PlacementRecord record = placements.at(model).record;
  std::uint64_t speeds = MixHash(record.epoch, members.size());
  for (const auto& [id, member] : members) {
    if (!member.here()) continue;
    const DeviceFacts& device = member.record.facts.device;
    speeds = MixHash(speeds, MixHash(HashOf(id), static_cast<std::uint64_t>(device.pace * 100)));
    speeds = MixHash(speeds, static_cast<std::uint64_t>(device.ration * 1000));
    speeds = MixHash(speeds, device.speeds.size() + device.stage_speeds.size());
  }
  // Nothing has changed since the last look: the same answer.
  if (speeds == one.seen && one.better_since == 0) return;
  one.seen = speeds;
  if (!MayReplan(record) || now < one.not_before) {
    one.better_since = 0;
    if (now < one.not_before) one.seen = 0;
    return;
  }
  const PlacementForecast as_is = ForecastFor(record);
  Result<PlacementRecord> built = Build(record.request, false, true);
  const bool known = as_is.tokens_s > 0 && built.ok() && built->stages != record.stages;
  const auto rate = [&](const PlacementForecast& forecast) {
    const PlaceGoal goal = record.request.goal;
    return goal == PlaceGoal::kLatency || goal == PlaceGoal::kEnergy ? forecast.tokens_s : forecast.tokens_s_many;
  };
  const double gain = known && rate(as_is) > 0 ? rate(built->forecast) / rate(as_is) : 1;
  const double move_s = known ? MoveSeconds(record, *built) : 0;
  if (gain < kGainMin || (gain - 1) * kHorizon_s < move_s) {
    one.better_since = 0;
    return;
  }
  if (one.better_since == 0) one.better_since = now;
  if (now - one.better_since < kGainLastsUs) return;
  one.better_since = 0;
  one.rest = now - one.moved < 2 * kRestMaxUs && one.moved > 0 ? std::min(2 * one.rest, kRestMaxUs) : kRestMinUs;
  one.moved = now;
  one.not_before = now + one.rest;
  built = Build(record.request, false);
  if (!built.ok() || built->stages == record.stages || !(rate(built->forecast) >= kGainMin * rate(as_is))) return;
  char text[96];
  std::snprintf(text, sizeof text, "' is placed anew: by the speeds of now that is %.2g times as fast", gain);
  Act(Note{"'" + model + text});
  StartDeciding(*std::move(built), {}, true, 1);
}

}  // namespace shoal
