// The decider's side of placements, and the wishes that go to it.
//
// Prepare is repeated until every stage has said that it is ready; then the placement is live and spreads. A stage that
// refuses because it knows a newer epoch makes the decider try again above that one.
#include <algorithm>

#include "cluster/split.h"
#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kAskEveryUs = 2'000'000;
constexpr DurationUs kNoDeciderUs = 20'000'000;  // a wish without anyone to decide it
constexpr DurationUs kPrepareEveryUs = 2'000'000;
constexpr DurationUs kPrepareMaxUs = 240'000'000;
constexpr DurationUs kCareWaitMinUs = 1'000'000, kCareWaitMaxUs = 8'000'000;
constexpr DurationUs kCalmUs = 60'000'000;
constexpr int kAttemptsMax = 5;
constexpr std::size_t kAnsweredMax = 256;
constexpr std::size_t kAskersMax = 64;

Error Stale(const std::string& model) {
  return {ErrorCode::kStale, "another request for '" + model + "' came between"};
}

}  // namespace

// ---- Wishes ---------------------------------------------------------------------------------------------------------

void Cluster::State::DriveWish(std::uint64_t id, Wish& wish) {
  if (now >= wish.give_up) {
    return EndWish(id, Error{ErrorCode::kUnavailable, "the cluster did not agree in time"}, 0);
  }
  const NodeId decider = Decider();
  const bool reachable = IsSelf(decider) || links.contains(decider);
  if (reachable) wish.reached = now;
  if (!reachable && now - wish.reached > kNoDeciderUs) {
    return EndWish(id, Error{ErrorCode::kUnavailable, "the node that decides cannot be reached"}, 0);
  }
  if (!reachable || (now < wish.send_due && wish.sent_to == decider)) return;
  wish.send_due = now + kAskEveryUs;
  wish.sent_to = decider;
  const PlaceAsk ask = wish.ask;
  Tell(decider, ask);  // may end the wish
}

void Cluster::State::EndWish(std::uint64_t id, const Status& status, Epoch epoch) {
  if (wishes.erase(id) == 1) Act(RequestDone{id, status, epoch});
}

void Cluster::State::On(const NodeId&, const PlaceAnswer& answer) {
  if (!answer.decides || !wishes.contains(answer.id)) return;
  EndWish(answer.id, answer.ok ? Status() : Status(Error{answer.code, answer.text}), answer.epoch);
}

void Cluster::State::AnswerAsker(const Asker& asker, const Status& status, Epoch epoch) {
  PlaceAnswer answer;
  answer.id = asker.id;
  answer.ok = status.ok();
  answer.epoch = epoch;
  if (!status.ok()) {
    answer.code = status.error().code;
    answer.text = status.error().message.substr(0, kErrorTextBytesMax);
  }
  if (answered.size() >= kAnsweredMax) answered.erase(answered.begin());
  answered[asker] = answer;
  Tell(asker.node, answer);
}

void Cluster::State::On(const NodeId& from, const PlaceAsk& ask) {
  const Asker asker{from, ask.id};
  if (!IsSelf(Decider())) {
    PlaceAnswer answer;
    answer.id = ask.id;
    answer.decides = false;
    return Tell(from, answer);
  }
  if (const auto known = answered.find(asker); known != answered.end()) return Tell(from, known->second);
  const std::string& model = ask.request.model;
  const auto running = deciding.find(model);
  if (running != deciding.end()) {
    const std::vector<Asker>& askers = running->second.askers;
    if (std::find(askers.begin(), askers.end(), asker) != askers.end()) return;
    GiveUp(model, Stale(model));
  }
  if (ask.unplace) {
    const auto placed = placements.find(model);
    if (placed == placements.end() || placed->second.record.state != PlacementState::kLive) {
      return AnswerAsker(asker, Error{ErrorCode::kNotFound, "'" + model + "' is not placed"}, 0);
    }
    PlacementRecord end;
    end.model = model;
    end.epoch = NewEpoch();
    end.state = PlacementState::kRetired;
    end.decider = options.self;
    end.request.model = model;
    Adopt(end, true);
    return AnswerAsker(asker, {}, end.epoch);
  }
  Result<PlacementRecord> built = Build(ask.request, false);
  if (!built.ok()) return AnswerAsker(asker, built.error(), 0);
  StartDeciding(*std::move(built), {asker}, false, 1);
}

// ---- A new placement ------------------------------------------------------------------------------------------------

Epoch Cluster::State::NewEpoch() {
  ++counters.epochs_made;
  ++round_max;
  if (options.break_epoch_tag) return (static_cast<Epoch>(round_max) << 32) | 1;
  return MakeEpoch(round_max, options.self, self().record.incarnation);
}

std::uint64_t Cluster::State::MemoryTaken(const NodeId& node, const std::string& but_model) const {
  std::uint64_t taken = 0;
  const auto add = [&](const PlacementRecord& record) {
    const std::int32_t index = record.StageOf(node);
    if (index < 0 || record.model == but_model) return;
    const LayerRange layers = record.stages[static_cast<std::size_t>(index)].layers;
    if (layers.last > record.request.shape.layers()) return;
    taken += StageBytes(record.request.shape, layers, record.request.options);
  };
  for (const auto& [model, placed] : placements) add(placed.record);
  for (const auto& [model, one] : deciding) add(one.record);
  return taken;
}

// `relax`: what was asked for explicitly gives way where it cannot be had any more. `only_asks`: whether there could be
// one, when those that are suspect come back; it is no placement to make.
Result<PlacementRecord> Cluster::State::Build(const PlaceRequest& asked, bool relax, bool only_asks) {
  struct Holder {
    NodeId node;
    const ModelHolding* holding;
  };
  std::vector<Holder> holders;
  std::map<std::uint64_t, int> votes;
  for (const auto& [id, member] : members) {
    if (!member.here() || (member.suspect && !only_asks) || member.record.facts.leaving) continue;
    for (const ModelHolding& holding : member.record.facts.models) {
      if (holding.name != asked.model || holding.shape.layers() < 1) continue;
      holders.push_back({id, &holding});
      ++votes[holding.fingerprint];
      break;
    }
  }
  std::uint64_t fingerprint = relax ? 0 : asked.fingerprint;
  if (fingerprint == 0) {
    for (const auto& [print, count] : votes) {
      if (fingerprint == 0 || count > votes[fingerprint]) fingerprint = print;
    }
    if (relax && votes.contains(asked.fingerprint)) fingerprint = asked.fingerprint;
  }
  std::erase_if(holders, [&](const Holder& holder) { return holder.holding->fingerprint != fingerprint; });
  if (holders.empty()) {
    return Error{ErrorCode::kNotFound, "no node that is here has the model '" + asked.model + "'"};
  }
  const ModelShape shape = holders.front().holding->shape;

  std::vector<SplitDevice> devices;
  const auto add = [&](const NodeId& node) {
    const DeviceFacts& facts = members.at(node).record.facts.device;
    const std::uint64_t taken = MemoryTaken(node, asked.model);
    devices.push_back({node, facts.memory_budget_bytes > taken ? facts.memory_budget_bytes - taken : 0, facts.speed});
  };
  for (const NodeId& node : asked.nodes) {
    const bool holds = std::any_of(holders.begin(), holders.end(), [&](const Holder& h) { return h.node == node; });
    if (holds) add(node);
    if (!holds && !relax) {
      return Error{ErrorCode::kInvalidArgument,
                   "node " + ShortHex(node) + " is not here, or does not have the model's file"};
    }
  }
  if (devices.empty()) {
    for (const Holder& holder : holders) add(holder.node);
  }
  Result<std::vector<SplitStage>> split = SplitModel(shape, devices, asked.stages, asked.ranges, asked.options);
  if (!split.ok() && relax) {
    devices.clear();
    for (const Holder& holder : holders) add(holder.node);
    const auto most = static_cast<std::int32_t>(devices.size());
    split = SplitModel(shape, devices, std::min(asked.stages, most), {}, asked.options);
    if (!split.ok()) split = SplitModel(shape, devices, 0, {}, asked.options);
  }
  if (!split.ok()) return std::move(split).error();
  if (split->size() > kStagesMax) return Error{ErrorCode::kInvalidArgument, "more stages than a placement may have"};

  PlacementRecord record;
  record.model = asked.model;
  record.epoch = only_asks ? 0 : NewEpoch();
  record.decider = options.self;
  record.request = asked;
  record.request.fingerprint = fingerprint;
  record.request.shape = shape;
  for (const SplitStage& stage : *split) {
    const NodeId& node = devices[static_cast<std::size_t>(stage.device)].node;
    record.stages.push_back({node, members.at(node).record.boot(), stage.layers});
  }
  return record;
}

void Cluster::State::StartDeciding(PlacementRecord record, std::vector<Asker> askers, bool automatic, int attempts) {
  Deciding one;
  one.stages.assign(record.stages.size(), StageStatus::kLoading);
  one.askers = std::move(askers);
  one.automatic = automatic;
  one.attempts = attempts;
  one.give_up = now + kPrepareMaxUs;
  one.record = std::move(record);
  const std::string model = one.record.model;
  deciding.insert_or_assign(model, std::move(one));
  SendPrepare(deciding.at(model));
}

void Cluster::State::SendPrepare(Deciding& one) {
  one.prepare_due = now + kPrepareEveryUs;
  const PlacementRecord record = one.record;  // telling oneself may end `one`
  for (const StagePlace& stage : record.stages) {
    const auto still = deciding.find(record.model);
    if (still == deciding.end() || still->second.record.epoch != record.epoch) return;
    Tell(stage.node, Prepare{record});
  }
}

void Cluster::State::GiveUp(const std::string& model, const Status& why) {
  const auto found = deciding.find(model);
  if (found == deciding.end()) return;
  const Deciding one = std::move(found->second);
  deciding.erase(found);
  for (const StagePlace& stage : one.record.stages) Tell(stage.node, Abort{model, one.record.epoch});
  for (const Asker& asker : one.askers) AnswerAsker(asker, why, 0);
  if (one.automatic && !why.ok()) care[model].reason = why.error().message;
}

void Cluster::State::Commit(const std::string& model) {
  Deciding one = std::move(deciding.at(model));
  deciding.erase(model);
  one.record.state = PlacementState::kLive;
  Adopt(one.record, true);
  for (const Asker& asker : one.askers) AnswerAsker(asker, {}, one.record.epoch);
}

void Cluster::State::On(const NodeId& from, const StageNews& news) {
  if (news.status == StageStatus::kLost) {
    const auto placed = placements.find(news.model);
    if (placed == placements.end() || placed->second.record.epoch != news.epoch) return;
    if (placed->second.record.StageOf(from) < 0) return;
    placed->second.lost = true;
    return;
  }
  const auto found = deciding.find(news.model);
  if (found == deciding.end() || found->second.record.epoch != news.epoch) return;
  Deciding& one = found->second;
  if (news.stage < 0 || static_cast<std::size_t>(news.stage) >= one.stages.size()) return;
  const auto at = static_cast<std::size_t>(news.stage);
  if (one.record.stages[at].node != from) return;
  switch (news.status) {
    case StageStatus::kLoading:
    case StageStatus::kLost: return;
    case StageStatus::kReady:
      one.stages[at] = StageStatus::kReady;
      if (std::all_of(one.stages.begin(), one.stages.end(), [](StageStatus s) { return s == StageStatus::kReady; })) {
        Commit(news.model);
      }
      return;
    case StageStatus::kFailed: {
      return GiveUp(news.model, Error{ErrorCode::kUnavailable, "on '" + NameOf(from) + "': " + news.text});
    }
    case StageStatus::kStale: break;
  }
  // Somebody placed it under a higher epoch that we had not heard of: above that one, then.
  SeeRound(news.known);
  const PlaceRequest request = one.record.request;
  const std::vector<Asker> askers = one.askers;
  const bool automatic = one.automatic;
  const int attempts = one.attempts;
  one.askers.clear();
  GiveUp(news.model, {});
  Result<PlacementRecord> again =
      attempts < kAttemptsMax && !automatic ? Build(request, false) : Result<PlacementRecord>(Stale(news.model));
  if (again.ok()) return StartDeciding(*std::move(again), askers, automatic, attempts + 1);
  for (const Asker& asker : askers) AnswerAsker(asker, again.error(), 0);
}

void Cluster::State::TickPlacing() {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, wish] : wishes) ids.push_back(id);
  for (const std::uint64_t id : ids) {
    if (const auto wish = wishes.find(id); wish != wishes.end()) DriveWish(id, wish->second);
  }
  std::vector<std::string> models;
  for (const auto& [model, one] : deciding) models.push_back(model);
  for (const std::string& model : models) {
    const auto found = deciding.find(model);
    if (found == deciding.end()) continue;
    Deciding& one = found->second;
    const bool gone = std::any_of(one.record.stages.begin(), one.record.stages.end(), [&](const StagePlace& stage) {
      const Member* member = Find(stage.node);
      return member == nullptr || !member->here() || member->record.boot() != stage.boot;
    });
    if (gone) {
      GiveUp(model, Error{ErrorCode::kUnavailable, "a node went away while its layers were being loaded; try again"});
    } else if (now >= one.give_up) {
      GiveUp(model, Error{ErrorCode::kUnavailable, "a node did not load its layers in time"});
    } else if (now >= one.prepare_due) {
      SendPrepare(one);
    }
  }
  CareForPlacements();
}

// ---- Care -----------------------------------------------------------------------------------------------------------

// Why a live placement needs another one; empty when it does not. `moves_only`: it runs, but a node wants to go.
std::string Cluster::State::ProblemOf(const Placed& placed, bool* moves_only) const {
  *moves_only = false;
  for (const StagePlace& stage : placed.record.stages) {
    const auto found = members.find(stage.node);
    const std::string name = NameOf(stage.node);
    if (found == members.end() || !found->second.here()) return "node '" + name + "' is gone";
    if (found->second.record.boot() != stage.boot) return "node '" + name + "' has started anew";
  }
  if (placed.lost) return "a stage was lost";
  for (const StagePlace& stage : placed.record.stages) {
    if (!members.at(stage.node).record.facts.leaving) continue;
    *moves_only = true;
    return "node '" + NameOf(stage.node) + "' leaves";
  }
  return {};
}

void Cluster::State::CareForPlacements() {
  if (!IsSelf(Decider())) return care.clear();
  std::vector<std::string> models;
  for (const auto& [model, placed] : placements) {
    if (placed.record.state == PlacementState::kLive) models.push_back(model);
  }
  for (const std::string& model : models) {
    if (deciding.contains(model)) continue;
    const Placed& placed = placements.at(model);
    bool moves_only = false;
    const std::string problem = ProblemOf(placed, &moves_only);
    if (problem.empty()) {
      // One that breaks again soon waits longer each time.
      if (now - placed.since > kCalmUs) care.erase(model);
      continue;
    }
    Care& one = care[model];
    if (now < one.next_try) continue;
    one.wait = std::clamp(2 * one.wait, kCareWaitMinUs, kCareWaitMaxUs);
    one.next_try = now + one.wait;
    const PlacementRecord old = placed.record;
    Result<PlacementRecord> built = Build(old.request, true);
    if (built.ok()) {
      Act(Note{"'" + model + "' is placed anew: " + problem});
      one.reason.clear();
      StartDeciding(*std::move(built), {}, true, 1);
      continue;
    }
    if (one.reason != built.error().message) {
      one.reason = built.error().message;
      Act(Note{"'" + model + "' cannot be placed anew (" + problem + "): " + one.reason});
      Act(PlacementsChanged{});
    }
    for (const StagePlace& stage : old.stages) {
      const Member* member = Find(stage.node);
      if (member != nullptr && member->here() && member->record.facts.leaving) {
        Tell(stage.node, MoveFailed{model, old.epoch, one.reason.substr(0, kErrorTextBytesMax)});
      }
    }
  }
}

}  // namespace shoal
