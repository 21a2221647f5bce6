// What a new placement looks like: cut anew over those that are here, or the one before with what was lost moved.
#include <algorithm>
#include <tuple>
#include <utility>

#include "cluster/held_weights.h"
#include "cluster/split.h"
#include "cluster/state.h"
#include "planner/device_speed.h"

namespace shoal {
namespace {

constexpr std::int64_t kAskingSteps = 10'000;  // of the search for whether there could be a placement at all
constexpr DurationUs kUnheardUs = 3'000'000;   // a word that one does not hear another is good for so long
constexpr int kHoldersNamed = 4;               // of those that are gone with what is missing

}  // namespace

// An automatic placement counts on those only that can be told: who may be gone is not waited for.
bool Cluster::State::MayHost(const NodeId& node) const {
  const auto found = members.find(node);
  if (found == members.end() || !found->second.here() || found->second.suspect) return false;
  return !found->second.record.facts.leaving && (IsSelf(node) || links.contains(node));
}

// Whether it has the model, or can get it from who has: unless it knows another one by that name.
bool Cluster::State::MayGet(const MemberFacts& facts, const std::string& model, std::uint64_t fingerprint) {
  return HoldingOf(facts, fingerprint) != nullptr ||
         std::none_of(facts.models.begin(), facts.models.end(),
                      [&](const ModelHolding& holding) { return holding.name == model; });
}

const ModelHolding* Cluster::State::HoldingOf(const MemberFacts& facts, std::uint64_t fingerprint) {
  const auto found = std::find_if(facts.models.begin(), facts.models.end(),
                                  [&](const ModelHolding& holding) { return holding.fingerprint == fingerprint; });
  return found == facts.models.end() ? nullptr : &*found;
}

// By what is placed and what is being placed; copies give way.
std::uint64_t Cluster::State::MemoryTaken(const NodeId& node, const std::string& but_model) const {
  std::uint64_t taken = 0;
  const auto add = [&](const PlacementRecord& record) {
    if (record.model == but_model) return;
    for (const std::int32_t index : record.StagesOf(node)) taken += StageBytes(record, index);
  };
  for (const auto& [model, placed] : placements) add(placed.record);
  for (const auto& [model, one] : deciding) add(one.record);
  return taken;
}

// ---- What is on whose disk ------------------------------------------------------------------------------------------

// Whether stage `index` of `record` comes from a disk: it neither runs where it is to be, nor is it kept ready there.
bool Cluster::State::IsRead(const PlacementRecord& record, std::int32_t index) const {
  const StagePlace& stage = record.stages[static_cast<std::size_t>(index)];
  if (HasCopy(stage.node, record, index)) return false;
  const auto placed = placements.find(record.model);
  if (record.continues == 0 || placed == placements.end() || placed->second.record.epoch != record.continues)
    return true;
  const PlacementRecord& old = placed->second.record;
  if (old.request.fingerprint != record.request.fingerprint) return true;
  if (!IsSameEngine(old.request.options, record.request.options)) return true;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(old.stages.size()); ++i) {
    if (old.stages[static_cast<std::size_t>(i)] == stage && !placed->second.lost.contains(i)) return false;
  }
  return true;
}

// Whether what `record` needs from disks is on those of members that are here; else says what is not, and who had it.
Status Cluster::State::CheckHeld(const PlacementRecord& record, bool with_suspects) const {
  MissingWeights missing;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(record.stages.size()); ++i) {
    if (IsRead(record, i)) missing.Want(record.LayersOf(i), record.request.shape.layers());
  }
  const auto gives = [&](const Member& member) { return member.here() && (with_suspects || !member.suspect); };
  const auto find_at = [&](const Member& member) {
    const ModelHolding* holding = HoldingOf(member.record.facts, record.request.fingerprint);
    return holding != nullptr && missing.Find(holding->held);
  };
  for (const auto& [id, member] : members) {
    if (gives(member)) (void)find_at(member);
  }
  if (missing.empty()) return {};
  const std::string what = missing.Text();
  std::string had;
  int named = 0;
  for (const auto& [id, member] : members) {
    if (named == kHoldersNamed || gives(member) || !find_at(member)) continue;
    had += (named++ == 0 ? "" : ", ") + ("'" + NameOf(id) + "'");
  }
  return Error{ErrorCode::kNotFound, "no node that is here holds " + what + " of '" + record.model + "'" +
                                         (had.empty() ? "" : " (held by " + had + ", not here now)") +
                                         ": bring back who does, or put the model's file on another node"};
}

// ---- The one before, mended -----------------------------------------------------------------------------------------

// Who takes stage `index`, one of the `vacant` ones whose nodes in `record` do not count: who has a copy, then who
// knows the model, then who has no stage of it, then who has most room. Nothing when nobody has room.
std::optional<NodeId> Cluster::State::BestFor(const PlacementRecord& record, std::int32_t index,
                                              const std::vector<std::int32_t>& vacant,
                                              const std::set<NodeId>& avoid) const {
  const PlaceRequest& request = record.request;
  std::optional<NodeId> best;
  std::tuple<bool, bool, bool, std::uint64_t> best_rank;
  for (const auto& [id, member] : members) {
    const MemberFacts& facts = member.record.facts;
    if (!MayGet(facts, record.model, request.fingerprint) || !MayHost(id) || avoid.contains(id)) continue;
    const bool holds = HoldingOf(facts, request.fingerprint) != nullptr;
    std::uint64_t need = MemoryTaken(id, record.model) + StageBytes(record, index);
    bool works = false;
    for (const std::int32_t other : record.StagesOf(id)) {
      if (std::find(vacant.begin(), vacant.end(), other) != vacant.end()) continue;
      need += StageBytes(record, other);
      works = true;
    }
    if (need > facts.device.memory_budget_bytes) continue;
    const std::tuple rank{HasCopy(id, record, index), holds, !works, facts.device.memory_budget_bytes - need};
    if (!best || rank > best_rank) std::tie(best, best_rank) = std::tuple(std::optional(id), rank);
  }
  return best;
}

// While this node hears both; else their silence has another reason: the one who said so may be the one who is gone.
bool Cluster::State::IsUnheard(const std::pair<NodeId, NodeId>& pair, TimeUs said) const {
  const bool ours = IsSelf(pair.first) || IsSelf(pair.second);
  const auto heard = [&](const NodeId& id) {
    const auto member = members.find(id);
    return member != members.end() && member->second.here() && (ours || !member->second.suspect);
  };
  return now - said < kUnheardUs && heard(pair.first) && heard(pair.second);
}

// One of each two that do not hear each other: of whom most say so; else who has the stage that somebody keeps a copy
// of, then who is no head, then the later one.
std::set<NodeId> Cluster::State::ToAvoid(const Placed& placed) const {
  std::set<NodeId> avoid;
  std::map<NodeId, std::set<NodeId>> lost;  // by node: with whom it has no contact
  for (const auto& [pair, said] : placed.unheard) {
    if (!IsUnheard(pair, said)) continue;
    lost[pair.first].insert(pair.second);
    lost[pair.second].insert(pair.first);
  }
  const auto rank = [&](const NodeId& node) {
    const std::vector<std::int32_t> stages = placed.record.StagesOf(node);
    const bool copied = std::all_of(stages.begin(), stages.end(),
                                    [&](std::int32_t index) { return !CopiesOf(placed.record, index).empty(); });
    return std::tuple(lost.at(node).size(), copied, stages.empty() ? 0 : stages.front(), node);
  };
  while (!lost.empty()) {
    const auto worst = std::max_element(lost.begin(), lost.end(),
                                        [&](const auto& a, const auto& b) { return rank(a.first) < rank(b.first); });
    const NodeId node = worst->first;
    avoid.insert(node);
    lost.erase(worst);
    for (auto& [other, with] : lost) with.erase(node);
    std::erase_if(lost, [](const auto& entry) { return entry.second.empty(); });
  }
  return avoid;
}

// The stages that are still there stay as they are; the others go elsewhere, as they were cut: of those that `failed`
// to load of this model to who has a copy only. `only_asks`: as of Build.
Result<PlacementRecord> Cluster::State::Continue(const Placed& placed, const std::set<NodeId>& failed, bool only_asks) {
  PlacementRecord record = placed.record;
  const std::set<NodeId> avoid = ToAvoid(placed);
  std::vector<std::int32_t> vacant;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(record.stages.size()); ++i) {
    const StagePlace& stage = record.stages[static_cast<std::size_t>(i)];
    const bool stays =
        MayHost(stage.node) && !avoid.contains(stage.node) && members.at(stage.node).record.boot() == stage.boot;
    if (!stays || placed.lost.contains(i)) vacant.push_back(i);
  }
  while (!vacant.empty()) {
    const std::int32_t index = vacant.back();
    std::set<NodeId> shunned = avoid;
    for (const NodeId& one : failed) {
      if (!HasCopy(one, record, index)) shunned.insert(one);
    }
    const std::optional<NodeId> node = BestFor(record, index, vacant, shunned);
    if (!node) return Error{ErrorCode::kOutOfMemory, "nobody has room for the layers that were lost, as they were cut"};
    record.stages[static_cast<std::size_t>(index)].node = *node;
    record.stages[static_cast<std::size_t>(index)].boot = members.at(*node).record.boot();
    vacant.pop_back();
  }
  record.continues = placed.record.epoch;
  SHOAL_RETURN_IF_ERROR(CheckHeld(record, only_asks));
  record.epoch = only_asks ? 0 : NewEpoch();
  record.state = PlacementState::kPreparing;
  record.decider = options.self;
  if (!only_asks) record.forecast = ForecastFor(record);
  return record;
}

// Who could not load layers of `model` lately: not asked again where others can be.
std::set<NodeId> Cluster::State::FailedToLoad(const std::string& model) const {
  std::set<NodeId> failed;
  for (const auto& [key, until] : load_failures) {
    const auto& [start, of] = key;
    const auto member = members.find(start.first);
    const bool same_start = member != members.end() && member->second.record.boot() == start.second;
    if (of == model && same_start && now < until) failed.insert(start.first);
  }
  return failed;
}

// Without those that failed to load; where that is impossible they are asked again.
Result<PlacementRecord> Cluster::State::BuildAnew(const Placed& placed) {
  const PlacementRecord& record = placed.record;
  // Cut anew it would be over the same nodes: where nobody else has room, the two may find each other again.
  const bool may_cut = ProblemOf(placed).kind != Problem::kUnheard;
  const std::set<NodeId> failed = FailedToLoad(record.model);
  if (!failed.empty()) {
    Result<PlacementRecord> built = Continue(placed, failed);
    if (!built.ok() && may_cut) built = Build(record.request, true, false, failed);
    if (built.ok()) return built;
  }
  Result<PlacementRecord> built = Continue(placed, {});
  if (!built.ok() && may_cut) built = Build(record.request, true);
  return built;
}

// ---- What the planner is told ---------------------------------------------------------------------------------------

SplitInput Cluster::State::SplitInputOf(const PlaceRequest& request, const std::string& quantization,
                                        const std::vector<NodeId>& nodes) const {
  SplitInput input;
  input.shape = request.shape;
  input.fingerprint = request.fingerprint;
  input.quantization = quantization;
  input.stages = request.stages;
  input.ranges = request.ranges;
  input.goal = request.goal;
  input.options = request.options;
  for (const NodeId& node : nodes) {
    const DeviceFacts& facts = members.at(node).record.facts.device;
    const std::uint64_t taken = MemoryTaken(node, request.model);
    input.devices.push_back(
        {NameOf(node), facts.memory_budget_bytes > taken ? facts.memory_budget_bytes - taken : 0, facts});
  }
  for (const NodeId& from : nodes) {
    for (const NodeId& to : nodes) input.links.push_back(LinkBetween(from, to));
  }
  return input;
}

// As either end measured it.
PlanLink Cluster::State::LinkBetween(const NodeId& from, const NodeId& to) const {
  PlanLink link = kUnmeasuredLink;
  const auto take = [&](std::uint32_t rtt_us, std::uint64_t bytes_per_s) {
    if (rtt_us > 0) link.latency_s = rtt_us / 2e6;
    if (bytes_per_s > 0) link.bytes_s = static_cast<double>(bytes_per_s);
  };
  for (const auto& [a, b] : {std::pair(&to, &from), std::pair(&from, &to)}) {  // the sender's word counts most
    if (IsSelf(*a)) {
      if (const auto known = links.find(*b); known != links.end())
        take(known->second.rtt_us, known->second.bytes_per_s);
      continue;
    }
    for (const LinkFacts& known : members.at(*a).record.links) {
      if (known.to == *b) take(known.rtt_us, known.bytes_per_s);
    }
  }
  return link;
}

// Empty when a node has two stages: the planner knows no such plans.
PlacementForecast Cluster::State::ForecastFor(const PlacementRecord& record) const {
  std::vector<NodeId> nodes;
  std::vector<SplitStage> stages;
  for (const StagePlace& stage : record.stages) {
    stages.push_back({static_cast<std::int32_t>(nodes.size()), stage.layers});
    nodes.push_back(stage.node);
  }
  std::string quantization;  // as anybody knows it
  for (const auto& [id, member] : members) {
    const ModelHolding* holding = HoldingOf(member.record.facts, record.request.fingerprint);
    if (holding != nullptr) quantization = holding->quantization;
  }
  if (std::set<NodeId>(nodes.begin(), nodes.end()).size() != nodes.size()) return {};
  const Result<PlacementForecast> forecast = ForecastOf(SplitInputOf(record.request, quantization, nodes), stages);
  return forecast.ok() ? *forecast : PlacementForecast{};
}

// ---- Cut anew -------------------------------------------------------------------------------------------------------

// Of the models that `nodes` hold by that name: the one asked for, else (`relax`, or none was) the one most of them
// have.
const ModelHolding* Cluster::State::ModelFor(const PlaceRequest& asked, const std::vector<NodeId>& nodes,
                                             bool relax) const {
  std::map<std::uint64_t, std::pair<int, const ModelHolding*>> found;  // by fingerprint: holders, and what one says
  for (const NodeId& node : nodes) {
    for (const ModelHolding& holding : members.at(node).record.facts.models) {
      if (holding.name != asked.model || holding.shape.layers() < 1) continue;
      auto& [holders, model] = found[holding.fingerprint];
      ++holders;
      model = &holding;
      break;
    }
  }
  if (const auto wanted = found.find(asked.fingerprint); wanted != found.end()) return wanted->second.second;
  if (found.empty() || (asked.fingerprint != 0 && !relax)) return nullptr;
  const auto most = std::max_element(found.begin(), found.end(),
                                     [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
  return most->second.second;
}

// `relax`: what was asked for explicitly gives way where it cannot be had any more. `only_asks`: whether there could be
// one, when those that are suspect come back; it is no placement to make. `without`: nobody of these.
Result<PlacementRecord> Cluster::State::Build(const PlaceRequest& asked, bool relax, bool only_asks,
                                              const std::set<NodeId>& without) {
  std::vector<NodeId> able;
  for (const auto& [id, member] : members) {
    const bool may = member.here() && (!member.suspect || only_asks) && !member.record.facts.leaving;
    if ((relax && !only_asks ? MayHost(id) : may) && !without.contains(id)) able.push_back(id);
  }
  const ModelHolding* const model = ModelFor(asked, able, relax);
  if (model == nullptr) {
    return Error{ErrorCode::kNotFound, "no node that is here has the model '" + asked.model + "'"};
  }
  std::erase_if(able, [&](const NodeId& node) {
    return !MayGet(members.at(node).record.facts, asked.model, model->fingerprint);
  });

  std::vector<NodeId> nodes;
  for (const NodeId& node : asked.nodes) {
    const bool can = std::find(able.begin(), able.end(), node) != able.end();
    if (can) nodes.push_back(node);
    if (!can && !relax) {
      return Error{ErrorCode::kInvalidArgument,
                   "node " + ShortHex(node) + " is not here, or has another model of that name"};
    }
  }
  const bool named = !nodes.empty();
  if (!named) nodes = able;
  PlaceRequest request = asked;
  request.fingerprint = model->fingerprint;
  request.shape = model->shape;
  SplitInput input = SplitInputOf(request, model->quantization, nodes);
  input.in_order = named;
  if (only_asks) input.steps_max = kAskingSteps;
  Result<Split> split = SplitModel(input);
  if (!split.ok() && relax) {
    nodes = able;
    input = SplitInputOf(request, input.quantization, nodes);
    input.ranges.clear();
    input.stages = std::min(asked.stages, static_cast<std::int32_t>(nodes.size()));
    split = SplitModel(input);
    input.stages = 0;
    if (!split.ok()) split = SplitModel(input);
  }
  if (!split.ok()) return std::move(split).error();
  if (split->stages.size() > kStagesMax)
    return Error{ErrorCode::kInvalidArgument, "more stages than a placement may have"};

  PlacementRecord record;
  record.model = asked.model;
  record.decider = options.self;
  if (const auto placed = placements.find(asked.model);
      placed != placements.end() && placed->second.record.state == PlacementState::kLive) {
    record.continues = placed->second.record.epoch;
  }
  record.request = std::move(request);
  record.forecast = std::move(split->forecast);
  for (const SplitStage& stage : split->stages) {
    const NodeId& node = nodes[static_cast<std::size_t>(stage.device)];
    record.stages.push_back({node, members.at(node).record.boot(), stage.layers});
  }
  SHOAL_RETURN_IF_ERROR(CheckHeld(record, only_asks));
  record.epoch = only_asks ? 0 : NewEpoch();
  return record;
}

}  // namespace shoal
