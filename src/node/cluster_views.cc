// Plain copying, and the reading of what was typed.
#include "node/cluster_views.h"

#include <algorithm>
#include <limits>
#include <set>
#include <string_view>

#include "cluster/split.h"
#include "engine/split_rules.h"
#include "identity/keys.h"
#include "wire/messages.h"

namespace shoal {
namespace {

constexpr std::size_t kIdShownMin = 8;       // of its end, where it stands for the whole
constexpr std::size_t kNamesBytesMax = 400;  // in a message

NodeStatus StatusOf(const MemberView& member) {
  const MemberFacts& facts = member.record.facts;
  NodeStatus status;
  status.id = PeerIdText(member.record.id);
  status.name = facts.name;
  status.state = std::string(MemberStateName(member.state));
  status.self = member.self;
  status.owner = facts.owner;
  status.addresses = facts.addresses;
  status.api = facts.api;
  status.os = facts.device.os;
  status.arch = facts.device.arch;
  status.cores = facts.device.cores;
  status.memory_bytes = facts.device.memory_bytes;
  status.memory_free_bytes = facts.device.memory_free_bytes;
  status.memory_budget_bytes = facts.device.memory_budget_bytes;
  status.memory_bytes_s = facts.device.memory_bytes_s;
  status.pace = facts.device.pace;
  status.battery_percent = facts.device.battery_percent;
  status.rest = facts.device.rest;
  status.draining = facts.device.draining;
  status.idle_w = facts.device.idle_w;
  status.active_w = facts.device.active_w;
  status.power_measured = facts.device.power_measured;
  status.on_battery = facts.device.on_battery;
  for (const SpeedFacts& speed : facts.device.speeds) {
    status.speeds.push_back({speed.quantization, speed.one_row_bytes_s, speed.rows_bytes_s, speed.operation_s});
  }
  for (const StageSpeedFacts& one : facts.device.stage_speeds) {
    for (const ModelHolding& model : facts.models) {
      if (model.fingerprint == one.fingerprint) status.stage_speeds.push_back({model.name, one.speed});
    }
  }
  status.ration = facts.device.ration;
  for (const CoreGroupFacts& group : facts.device.groups) {
    status.groups.push_back({group.kind, group.cores, group.bytes_s});
  }
  const OffloadFacts& offload = facts.device.offload;
  constexpr const char* kUses[] = {"untried", "computes", "failed"};
  status.offload = {offload.device, offload.layers, kUses[static_cast<std::size_t>(offload.use)], offload.text};
  for (const ModelHolding& model : facts.models) {
    status.models.push_back(
        {model.name, model.file_bytes, model.shape.layers(), model.fingerprint, model.held.layers, model.held.bytes});
  }
  for (const Fetching& one : facts.fetching) status.fetching.push_back({one.model, one.bytes_done, one.bytes_total});
  return status;
}

PlacementStatus StatusOf(const std::vector<MemberView>& members, const PlacementRecord& record) {
  PlacementStatus status;
  status.model = record.model;
  status.epoch = record.epoch;
  status.state = std::string(PlacementStateName(record.state));
  status.goal = PlaceGoalName(record.request.goal);
  const PlacementForecast& forecast = record.forecast;
  status.forecast = {forecast.first_token_s, forecast.tokens_s, forecast.tokens_s_many, forecast.measured,
                     forecast.reason};
  for (std::size_t i = 0; i < record.stages.size(); ++i) {
    const StagePlace& stage = record.stages[i];
    const auto member =
        std::find_if(members.begin(), members.end(), [&](const MemberView& m) { return m.record.id == stage.node; });
    status.stages.push_back({PeerIdText(stage.node),
                             member == members.end() ? "" : member->record.facts.name,
                             stage.layers,
                             {},
                             StageBytes(record, static_cast<std::int32_t>(i))});
  }
  for (const MemberView& member : members) {
    if (record.stages.empty() || member.record.id != record.stages.front().node) continue;
    for (const ObservedPlacement& one : member.record.facts.observed) {
      if (one.model == record.model && one.epoch == record.epoch) status.observed = one.speeds;
    }
  }
  return status;
}

// Whether `text` is what people are shown of an id: its last characters.
bool EndsPeerId(const NodeId& id, std::string_view text) {
  if (text.starts_with("..")) text.remove_prefix(2);
  return text.size() >= kIdShownMin && PeerIdText(id).ends_with(text);
}

Result<NodeId> TheOne(const std::vector<NodeId>& found, const std::string& text) {
  if (found.size() == 1) return found.front();
  std::string ids;
  for (const NodeId& id : found) ids += (ids.empty() ? "" : ", ") + PeerIdText(id);
  return Error{ErrorCode::kInvalidArgument,
               "more than one node is called '" + text + "': give one of these ids: " + ids};
}

// A holding of that name, of any member that is here.
Result<ModelHolding> FindHolding(const Cluster& cluster, const std::string& model) {
  std::string known;
  for (const MemberView& member : cluster.members()) {
    if (member.state != MemberState::kAlive) continue;
    for (const ModelHolding& holding : member.record.facts.models) {
      if (holding.name == model) return holding;
      if (known.find(holding.name) == std::string::npos) known += (known.empty() ? "" : ", ") + holding.name;
    }
  }
  if (!known.empty()) {
    return Error{ErrorCode::kNotFound,
                 "no node has a model '" + model + "'; known are: " + known + ". `shoal pull` gets others"};
  }
  return Error{ErrorCode::kNotFound, "no node has a model '" + model +
                                         "', nor any other: name one of the hub (hf:OWNER/REPO), of `shoal models "
                                         "--catalogue` or a URL, `shoal pull` one, or put GGUF files into "
                                         "SHOAL_HOME/models"};
}

}  // namespace

ClusterStatus StatusOf(const Cluster& cluster, const NodeId& cluster_id) {
  ClusterStatus status;
  status.self = PeerIdText(cluster.self());
  status.cluster = PeerIdText(cluster_id);
  const std::vector<MemberView> members = cluster.members();
  for (const MemberView& member : members) status.nodes.push_back(StatusOf(member));
  for (const LinkView& link : cluster.links()) {
    status.links.push_back(
        {PeerIdText(link.from), PeerIdText(link.facts.to), link.facts.rtt_us, link.facts.bytes_per_s});
  }
  for (const PlacementView& view : cluster.placements()) status.placements.push_back(StatusOf(cluster, view));
  for (const PlacementRecord& record : cluster.preparing()) status.placements.push_back(StatusOf(members, record));
  return status;
}

PlacementStatus StatusOf(const Cluster& cluster, const PlacementView& view) {
  const std::vector<MemberView> members = cluster.members();
  PlacementStatus status = StatusOf(members, view.record);
  const auto name = [&](const NodeId& id) {
    for (const MemberView& member : members) {
      if (member.record.id == id && !member.record.facts.name.empty()) return member.record.facts.name;
    }
    return ShortHex(id);
  };
  for (std::size_t i = 0; i < status.stages.size() && i < view.copies.size(); ++i) {
    for (const NodeId& node : view.copies[i]) status.stages[i].standby.push_back(name(node));
  }
  for (const NodeId& node : view.survives) status.survives.push_back(name(node));
  if (view.broken) status.state = "failed";
  status.error = view.reason;
  return status;
}

bool IsAlone(const Cluster& cluster) {
  const std::vector<MemberView> members = cluster.members();
  return std::none_of(members.begin(), members.end(),
                      [](const MemberView& member) { return !member.self && member.state == MemberState::kAlive; });
}

std::vector<AnswerMember> AnswerMembersOf(const Cluster& cluster, const std::vector<PlacementView>& placements) {
  std::set<std::uint64_t> placed;
  for (const PlacementView& placement : placements) placed.insert(placement.record.request.fingerprint);
  std::vector<AnswerMember> members;
  for (const MemberView& member : cluster.members()) {
    if (member.self || !member.linked) continue;
    if (member.state != MemberState::kAlive && member.state != MemberState::kSuspect) continue;
    const MemberFacts& facts = member.record.facts;
    AnswerMember& one = members.emplace_back();
    one.id = member.record.id;
    one.alive = member.state == MemberState::kAlive && !facts.leaving;
    for (const ModelHolding& model : facts.models) one.models += placed.count(model.fingerprint);
  }
  return members;
}

Result<NodeId> FindMember(const Cluster& cluster, const std::string& text) {
  if (const Result<NodeId> id = ParsePeerId(text); id.ok()) return *id;
  std::vector<NodeId> found, gone;  // one that is gone gives way to a namesake that is here
  for (const MemberView& member : cluster.members()) {
    if (member.record.facts.name != text && !EndsPeerId(member.record.id, text)) continue;
    const bool here = member.state == MemberState::kAlive || member.state == MemberState::kSuspect;
    (here ? found : gone).push_back(member.record.id);
  }
  if (found.empty()) found = std::move(gone);
  if (found.empty()) return Error{ErrorCode::kNotFound, "there is no node '" + text + "'; `shoal status` lists them"};
  return TheOne(found, text);
}

Result<NodeId> FindMember(const Cluster& cluster, const KnownMembers& known, const std::vector<Revocation>& revoked,
                          const std::string& text) {
  if (const Result<NodeId> id = ParsePeerId(text); id.ok()) return *id;
  std::set<NodeId> found;
  const auto look_at = [&](const NodeId& id, const std::string& name) {
    if (name == text || EndsPeerId(id, text)) found.insert(id);
  };
  std::string all;
  for (const auto& [id, name] : known) {
    look_at(id, name);
    if (all.size() < kNamesBytesMax) all += (all.empty() ? "" : ", ") + name;
  }
  for (const MemberView& member : cluster.members()) look_at(member.record.id, member.record.facts.name);
  for (const Revocation& one : revoked) found.erase(one.member);
  if (!found.empty()) return TheOne({found.begin(), found.end()}, text);
  return Error{ErrorCode::kNotFound, "there is no node '" + text + "'; `shoal status` lists those that are here" +
                                         (all.empty() ? "" : ", and members are " + all)};
}

Result<PlaceRequest> RequestOf(const Cluster& cluster, const PlaceCommand& command) {
  PlaceRequest request;
  request.model = command.model;
  SHOAL_ASSIGN_OR_RETURN(const ModelHolding holding, FindHolding(cluster, command.model));
  const auto many = [](std::size_t count, const char* what) {
    return Error{ErrorCode::kInvalidArgument, std::to_string(count) + " " + what + ": a placement has at most " +
                                                  std::to_string(kStagesMax) + " stages"};
  };
  if (command.nodes.size() > kStagesMax) return many(command.nodes.size(), "nodes");
  for (const std::string& node : command.nodes) {
    SHOAL_ASSIGN_OR_RETURN(request.nodes.emplace_back(), FindMember(cluster, node));
  }
  if (!command.stages.empty()) {
    SHOAL_ASSIGN_OR_RETURN(std::vector<LayerRange> ranges, ParseStages(command.stages, holding.shape.layers()));
    if (ranges.size() > kStagesMax) return many(ranges.size(), "stages");
    const bool is_count = command.stages.find_first_of("-,") == std::string::npos;
    request.stages = static_cast<std::int32_t>(ranges.size());
    if (!is_count) request.ranges = std::move(ranges);
  }
  if (command.slots < 1 || command.slots > 256 || command.context_tokens < 0 || command.context_tokens > (1 << 20)) {
    return Error{ErrorCode::kInvalidArgument, "slots must be 1 to 256 and the context at most 1,048,576 tokens"};
  }
  request.options.context_tokens = command.context_tokens;
  request.options.slots = command.slots;
  if (command.standby < 0 || command.standby > kStandbyMax) {
    return Error{ErrorCode::kInvalidArgument, "at most " + std::to_string(kStandbyMax) + " standby copies of a stage"};
  }
  request.options.standby = command.standby;
  for (const PlaceGoal goal : {PlaceGoal::kSpread, PlaceGoal::kLatency, PlaceGoal::kThroughput, PlaceGoal::kEnergy}) {
    if (command.goal == PlaceGoalName(goal)) request.goal = goal;
  }
  SHOAL_ASSIGN_OR_RETURN(request.options.wire_type, ParseWireType(command.wire));
  return request;
}

std::vector<ObservedPlacement> ObservedOf(const std::vector<StageHost::Work>& works) {
  std::vector<ObservedPlacement> observed;
  for (const StageHost::Work& work : works) {
    if (work.index != 0 || work.observed == ObservedSpeeds() || observed.size() >= kObservedMax) continue;
    observed.push_back({work.placement.model, work.placement.epoch, work.observed});
  }
  return observed;
}

bool IsNews(const std::vector<ObservedPlacement>& now, const std::vector<ObservedPlacement>& told) {
  if (now.size() != told.size()) return true;
  for (std::size_t i = 0; i < now.size(); ++i) {
    const bool same = now[i].model == told[i].model && now[i].epoch == told[i].epoch;
    if (!same || Differs(now[i].speeds, told[i].speeds)) return true;
  }
  return false;
}

void PutObserved(const std::vector<ObservedPlacement>& observed, ClusterStatus& status) {
  for (PlacementStatus& placement : status.placements) {
    for (const ObservedPlacement& one : observed) {
      if (one.model == placement.model && one.epoch == placement.epoch) placement.observed = one.speeds;
    }
  }
}

std::map<NodeId, double> DraftChancesOf(const Cluster& cluster) {
  std::map<NodeId, double> chances;
  for (const MemberView& member : cluster.members()) {
    const DeviceFacts& device = member.record.facts.device;
    if (device.on_battery) chances[member.record.id] = 0.9;
    if (device.rest > 0) chances[member.record.id] = 2;
  }
  return chances;
}

MembersWithNames MembersHere(const Cluster& cluster) {
  MembersWithNames members;
  for (const MemberView& member : cluster.members()) {
    if (member.self || member.state != MemberState::kAlive) continue;
    members.emplace_back(member.record.id, member.record.facts.name);
  }
  return members;
}

std::vector<ModelHolding> UnknownModels(const Cluster& cluster, const std::vector<ModelHolding>& own) {
  std::vector<ModelHolding> unknown;
  for (const MemberView& member : cluster.members()) {
    if (member.self || member.state != MemberState::kAlive) continue;
    for (const ModelHolding& holding : member.record.facts.models) {
      const auto same = [&](const ModelHolding& one) { return one.name == holding.name; };
      const bool known = std::any_of(own.begin(), own.end(), same) || std::any_of(unknown.begin(), unknown.end(), same);
      if (!known && own.size() + unknown.size() < kHoldingsMax) unknown.push_back(holding);
    }
  }
  return unknown;
}

HeldWeights WholeModel(const ModelFile& file) {
  return {{{0, file.info.n_layer}}, true, true, true, file.gguf.file_bytes - file.gguf.data_offset};
}

std::vector<ModelHolding> HoldingsOf(const std::vector<std::pair<LibraryModel, HeldWeights>>& models) {
  std::vector<ModelHolding> holdings;
  std::size_t layers = 0;
  for (const auto& [model, held] : models) {
    const ModelInfo& info = model.file->info;
    layers += static_cast<std::size_t>(info.n_layer);
    const bool known = std::any_of(holdings.begin(), holdings.end(),
                                   [&, &name = model.name](const auto& h) { return h.name == name; });
    if (known || holdings.size() >= kHoldingsMax || layers > kHoldingLayersMax ||
        static_cast<std::size_t>(info.n_layer) > kLayersMax || model.name.size() > kModelNameBytesMax) {
      continue;
    }
    ModelHolding holding;
    holding.name = model.name;
    holding.fingerprint = model.fingerprint;
    holding.file_bytes = info.file_bytes;
    holding.shape.layer_bytes = info.layer_bytes;
    for (const std::uint32_t elements : info.kv_elements) {
      holding.shape.kv_bytes.push_back(std::min(elements, std::numeric_limits<std::uint32_t>::max() / 2) * 2);
    }
    holding.quantization = info.quantization.substr(0, kQuantizationBytesMax);
    holding.shape.output_bytes = info.output_bytes;
    holding.shape.n_embd = static_cast<std::uint32_t>(std::clamp<std::int64_t>(info.n_embd, 0, kEmbdMax));
    if (const SplitRules rules = RulesFor(*model.file); rules.splittable) holding.shape.cuts = rules.cuts;
    holding.held = held;
    if (held.layers.size() > kHeldRangesMax) holding.held.layers.resize(kHeldRangesMax);
    holdings.push_back(std::move(holding));
  }
  return holdings;
}

}  // namespace shoal
