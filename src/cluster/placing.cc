// The decider's side of placements, and the wishes that go to it.
//
// Prepare is repeated until every stage has said that it is ready; then the placement is live and spreads. A stage that
// refuses because it knows a newer epoch makes the decider try again above that one.
#include <algorithm>
#include <utility>

#include "cluster/split.h"
#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kAskEveryUs = 2'000'000;
constexpr DurationUs kNoDeciderUs = 20'000'000;  // a wish without anyone to decide it
constexpr DurationUs kPrepareEveryUs = 2'000'000;
constexpr DurationUs kPrepareMaxUs = 240'000'000;  // without a byte of layers coming to anybody
constexpr DurationUs kCareWaitMinUs = 1'000'000, kCareWaitMaxUs = 8'000'000;
constexpr DurationUs kCalmUs = 20'000'000;
constexpr DurationUs kCutOffUs =
    10'000'000;  // a node that has lost all others, several of them, waits for them so long
constexpr DurationUs kVerdictMaxUs = 3'000'000;  // for whether a silent node is dead, before its layers are moved
constexpr int kAttemptsMax = 5;
constexpr std::size_t kAnsweredMax = 256;
constexpr std::size_t kAskersMax = 64;
constexpr DurationUs kLoadFailedUs = 60'000'000;  // who could not load is asked last for so long
constexpr std::size_t kLoadFailuresMax = 256;

Error Stale(const std::string& model) {
  return {ErrorCode::kStale, "another request for '" + model + "' came between"};
}

}  // namespace

// ---- Wishes ---------------------------------------------------------------------------------------------------------

void Cluster::State::DriveWish(std::uint64_t id, Wish& wish) {
  const std::uint64_t fetched = Fetched(wish.ask.request.model, nullptr);
  if (std::exchange(wish.fetched, fetched) != fetched) wish.give_up = now + options.request_max_us;
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
  replans.erase(model);  // what a person asks for starts afresh
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
  if (one.automatic && !why.ok() && care.contains(model)) care.at(model).reason = why.error().message;
}

void Cluster::State::Commit(const std::string& model) {
  Deciding one = std::move(deciding.at(model));
  deciding.erase(model);
  one.record.state = PlacementState::kLive;
  Adopt(one.record, true);
  for (const Asker& asker : one.askers) AnswerAsker(asker, {}, one.record.epoch);
}

void Cluster::State::On(const NodeId& from, const StageNews& news) {
  if (news.status == StageStatus::kLost || news.status == StageStatus::kBroken) {
    const auto placed = placements.find(news.model);
    if (placed == placements.end() || placed->second.record.epoch != news.epoch) return;
    const std::vector<std::int32_t> theirs = placed->second.record.StagesOf(from);
    if (std::find(theirs.begin(), theirs.end(), news.stage) == theirs.end()) return;
    if (news.status == StageStatus::kLost) placed->second.lost.insert(news.stage);
    if (news.status == StageStatus::kBroken) placed->second.broken = true;
    hurry = true;
    return;
  }
  if (news.status == StageStatus::kUnheard) {
    const auto placed = placements.find(news.model);
    if (placed == placements.end() || placed->second.record.epoch != news.epoch) return;
    const PlacementRecord& record = placed->second.record;
    if (!record.Has(from) || news.known >= record.stages.size()) return;
    const NodeId subject = record.stages[static_cast<std::size_t>(news.known)].node;
    if (subject == from) return;
    placed->second.unheard[{from, subject}] = now;
    hurry = true;
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
    case StageStatus::kLost:
    case StageStatus::kUnheard:
    case StageStatus::kBroken: return;
    case StageStatus::kReady:
      load_failures.erase({{from, one.record.stages[at].boot}, news.model});
      one.stages[at] = StageStatus::kReady;
      if (std::all_of(one.stages.begin(), one.stages.end(), [](StageStatus s) { return s == StageStatus::kReady; })) {
        Commit(news.model);
      }
      return;
    case StageStatus::kFailed:
      NoteFailure(one.record.stages[at], news.model);
      return GiveUp(news.model, Error{ErrorCode::kUnavailable, "on '" + NameOf(from) + "': " + news.text});
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

void Cluster::State::NoteFailure(const StagePlace& stage, const std::string& model) {
  std::erase_if(load_failures, [&](const auto& entry) { return now >= entry.second; });
  if (load_failures.size() >= kLoadFailuresMax) load_failures.erase(load_failures.begin());
  load_failures[{{stage.node, stage.boot}, model}] = now + kLoadFailedUs;
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
    const std::uint64_t fetched = Fetched(model, nullptr);
    if (std::exchange(one.fetched, fetched) != fetched) one.give_up = now + kPrepareMaxUs;
    const bool gone = std::any_of(one.record.stages.begin(), one.record.stages.end(), [&](const StagePlace& stage) {
      const Member* member = Find(stage.node);
      return member == nullptr || !member->here() || member->record.boot() != stage.boot;
    });
    if (gone) {
      if (const auto known = care.find(model); known != care.end()) known->second.next_try = now;
      GiveUp(model, Error{ErrorCode::kUnavailable, "a node went away while its layers were being loaded; try again"});
    } else if (now >= one.give_up) {
      for (std::size_t i = 0; i < one.stages.size(); ++i) {
        if (one.stages[i] != StageStatus::kReady) NoteFailure(one.record.stages[i], model);
      }
      GiveUp(model, Error{ErrorCode::kUnavailable, "a node did not load its layers in time"});
    } else if (now >= one.prepare_due) {
      SendPrepare(one);
    }
  }
  CareForPlacements();
  TellProblems();
  CareForPace();
  CareForStandby();
}

// ---- Care -----------------------------------------------------------------------------------------------------------

// Why a live placement needs another one.
Cluster::State::Problem Cluster::State::ProblemOf(const Placed& placed) const {
  for (const StagePlace& stage : placed.record.stages) {
    const auto found = members.find(stage.node);
    if (found == members.end() || !found->second.here()) {
      return {Problem::kGone, "node '" + NameOf(stage.node) + "' is gone"};
    }
    if (found->second.record.boot() != stage.boot) {
      return {Problem::kGone, "node '" + NameOf(stage.node) + "' has started anew"};
    }
  }
  if (!placed.lost.empty()) return {Problem::kBroken, "a stage was lost"};
  if (placed.broken) return {Problem::kBroken, "a link between its stages was lost"};
  for (const auto& [pair, said] : placed.unheard) {
    if (!IsUnheard(pair, said)) continue;
    return {Problem::kUnheard, "node '" + NameOf(pair.first) + "' does not hear '" + NameOf(pair.second) + "'"};
  }
  for (const StagePlace& stage : placed.record.stages) {
    if (members.at(stage.node).record.facts.leaving)
      return {Problem::kMoves, "node '" + NameOf(stage.node) + "' leaves"};
  }
  return {};
}

// Whether a node of it is silent and nobody has said yet that it is dead.
bool Cluster::State::InDoubt(const PlacementRecord& record) const {
  return std::any_of(record.stages.begin(), record.stages.end(), [&](const StagePlace& stage) {
    const auto found = members.find(stage.node);
    if (found == members.end() || !found->second.here() || IsSelf(stage.node)) return false;
    return found->second.suspect || !links.contains(stage.node);
  });
}

// Nobody is left of several who were here lately.
bool Cluster::State::IsCutOff() const {
  return HereCount() == 1 && std::count_if(members.begin(), members.end(), [&](const auto& entry) {
                               return entry.second.record.state == MemberState::kDead &&
                                      now - entry.second.state_since < 2 * kCutOffUs;
                             }) > 1;
}

// A problem may come or pass by what a stage says, or by time alone: nobody else would tell those who wait for it.
void Cluster::State::TellProblems() {
  bool changed = false;
  for (auto& [model, placed] : placements) {
    const bool broken = placed.record.state == PlacementState::kLive && ProblemOf(placed).kind > Problem::kMoves;
    changed = changed || broken != placed.told_broken;
    placed.told_broken = broken;
  }
  if (changed) Act(PlacementsChanged{});
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
    const Problem problem = ProblemOf(placed);
    const auto known = care.find(model);
    if (problem.kind == Problem::kNone) {
      // One that breaks again soon waits longer each time.
      if (known == care.end()) continue;
      known->second.problem.clear();
      if (now - placed.since > kCalmUs) care.erase(known);
      continue;
    }
    Care& one = care[model];
    if (one.problem != problem.text) {
      one.problem = problem.text;
      one.since = now;
      if (problem.kind != Problem::kBroken) one.next_try = now;  // that one went does not come again at once
    }
    // Of one that is not heard it has been asked long enough.
    const bool in_doubt = problem.kind != Problem::kUnheard && InDoubt(placed.record);
    if (now < one.next_try || (in_doubt && now - one.since < kVerdictMaxUs)) continue;
    if (IsCutOff() && now - one.since < kCutOffUs) continue;
    PlaceAnew(model, one);
  }
}

void Cluster::State::PlaceAnew(const std::string& model, Care& one) {
  one.wait = std::clamp(2 * one.wait, kCareWaitMinUs, kCareWaitMaxUs);
  one.next_try = now + one.wait;
  const Placed placed = placements.at(model);
  Result<PlacementRecord> built = BuildAnew(placed);
  if (built.ok()) {
    Act(Note{"'" + model + "' is placed anew: " + one.problem});
    one.reason.clear();
    return StartDeciding(*std::move(built), {}, true, 1);
  }
  if (one.reason != built.error().message) {
    one.reason = built.error().message;
    Act(Note{"'" + model + "' cannot be placed anew (" + one.problem + "): " + one.reason});
    Act(PlacementsChanged{});
  }
  for (const StagePlace& stage : placed.record.stages) {
    const Member* member = Find(stage.node);
    if (member != nullptr && member->here() && member->record.facts.leaving) {
      Tell(stage.node, MoveFailed{model, placed.record.epoch, one.reason.substr(0, kErrorTextBytesMax)});
    }
  }
}

}  // namespace shoal
