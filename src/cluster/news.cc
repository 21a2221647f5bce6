// How news spreads and is mended: members, placements and revocations, by deltas to all and by comparing versions.
#include <algorithm>
#include <utility>

#include "cluster/state.h"

namespace shoal {
namespace {

constexpr DurationUs kSyncEveryUs = 1'000'000;  // with one peer
// A question names every member, and under faults digests differ on all links at once; but what one neighbour knows is
// mostly what all do. With all of them together:
constexpr double kSyncAsksMax = 8, kSyncAsksPerS = 4;
// Of each kind in a delta of its own: with everything at its limit they fit a frame (130 KB a member, 30 KB a
// placement).
constexpr std::size_t kMembersOfOneDelta = 6, kPlacementsOfOneDelta = 16, kRevocationsOfOneDelta = 256;

}  // namespace

MemberRecord Cluster::State::Told(const Member& member) const {
  MemberRecord record = member.record;
  if (!member.here()) {
    record.state_age_s = member.age_then_s + static_cast<std::uint32_t>((now - member.state_since) / 1'000'000);
  }
  return record;
}

SyncDelta::Member Cluster::State::NewsOf(const Member& member, bool facts, bool links_too) const {
  SyncDelta::Member news{Told(member), facts, links_too};
  if (!facts) news.record.facts = {};
  if (!links_too) news.record.links.clear();
  return news;
}

void Cluster::State::SpreadSelf(bool facts, bool links_too) {
  TellAll(SyncDelta{{NewsOf(self(), facts, links_too)}, {}, {}});
}

bool Cluster::State::TakeSyncAsk() {
  const double more = kSyncAsksPerS * static_cast<double>(std::min<DurationUs>(now - sync_asks_at, 60'000'000)) / 1e6;
  sync_asks = std::min(kSyncAsksMax, sync_asks + more);
  sync_asks_at = now;
  if (sync_asks < 1) return false;
  sync_asks -= 1;
  return true;
}

void Cluster::State::SendSyncAsk(const NodeId& to, bool is_answer) {
  const auto link = links.find(to);
  if (link == links.end() || (!is_answer && (now < link->second.sync_after || !TakeSyncAsk()))) return;
  link->second.sync_after = now + kSyncEveryUs;
  link->second.mismatches = 0;
  ++counters.syncs;
  SyncAsk ask;
  ask.is_answer = is_answer;
  for (const auto& [id, member] : members) {
    const MemberRecord& r = member.record;
    ask.members.push_back({id, r.incarnation, r.nonce, r.state, r.facts_version, r.links_version});
  }
  for (const auto& [model, placed] : placements) ask.placements.push_back({HashOf(model), placed.record.epoch});
  for (const auto& [hash, bytes] : revocations) ask.revocations.push_back(hash);
  Tell(to, std::move(ask));
}

void Cluster::State::On(const NodeId& from, const SyncAsk& ask) {
  bool theirs_newer = false;
  std::map<NodeId, const SyncAsk::Member*> told;
  for (const SyncAsk::Member& one : ask.members) {
    told[one.id] = &one;
    const Member* mine = Find(one.id);
    if (mine == nullptr) {
      theirs_newer = theirs_newer || one.state == MemberState::kAlive;
      continue;
    }
    const MemberRecord& r = mine->record;
    const bool same = one.incarnation == r.incarnation && one.state == r.state;
    theirs_newer = theirs_newer || Supersedes(one.incarnation, one.state, r.incarnation, r.state) ||
                   (same && (one.facts_version > r.facts_version || one.links_version > r.links_version)) ||
                   (IsSelf(one.id) && one.nonce != r.nonce && one.incarnation >= r.incarnation);
  }
  SyncDelta delta;
  const auto flush = [&](bool all) {
    if (delta.members.size() >= kMembersOfOneDelta || delta.placements.size() >= kPlacementsOfOneDelta ||
        delta.revocations.size() >= kRevocationsOfOneDelta || all) {
      if (!delta.members.empty() || !delta.placements.empty() || !delta.revocations.empty()) Tell(from, delta);
      delta = {};
    }
  };
  for (const auto& [id, member] : members) {
    const MemberRecord& r = member.record;
    const auto found = told.find(id);
    if (found == told.end()) {
      if (member.here()) delta.members.push_back(NewsOf(member, true, true));
    } else {
      const SyncAsk::Member& one = *found->second;
      const bool restarted = r.boot() > one.incarnation >> 16;
      const bool newer = Supersedes(r.incarnation, r.state, one.incarnation, one.state);
      const bool facts = restarted || r.facts_version > one.facts_version;
      const bool links_too = restarted || r.links_version > one.links_version;
      if (newer || (r.boot() == one.incarnation >> 16 && (facts || links_too))) {
        delta.members.push_back(NewsOf(member, facts, links_too));
      }
    }
    flush(false);
  }
  flush(true);
  std::map<std::uint64_t, Epoch> epochs;
  for (const SyncAsk::Placement& one : ask.placements) epochs[one.model_hash] = one.epoch;
  for (const auto& [model, placed] : placements) {
    const auto found = epochs.find(HashOf(model));
    if (found == epochs.end() || found->second < placed.record.epoch) delta.placements.push_back(placed.record);
    if (found != epochs.end()) {
      theirs_newer = theirs_newer || found->second > placed.record.epoch;
      epochs.erase(found);
    }
    flush(false);
  }
  flush(true);
  theirs_newer = theirs_newer || !epochs.empty();
  std::set<std::uint64_t> known(ask.revocations.begin(), ask.revocations.end());
  for (const auto& [hash, bytes] : revocations) {
    if (known.erase(hash) == 0) delta.revocations.push_back(bytes);
    flush(false);
  }
  flush(true);
  if ((theirs_newer || !known.empty()) && !ask.is_answer) SendSyncAsk(from, true);
}

void Cluster::State::On(const NodeId&, const SyncDelta& delta) {
  for (const std::vector<std::uint8_t>& bytes : delta.revocations) (void)TakeRevocation(bytes, true);
  for (const SyncDelta::Member& news : delta.members) {
    if (Merge(news)) members_changed = true;
  }
  for (const PlacementRecord& record : delta.placements) Adopt(record, false);
}

bool Cluster::State::MakeRoomForMember() {
  if (members.size() < kMembersMax) return true;
  auto oldest = members.end();
  for (auto it = members.begin(); it != members.end(); ++it) {
    if (it->second.here()) continue;
    if (oldest == members.end() || it->second.state_since < oldest->second.state_since) oldest = it;
  }
  if (oldest == members.end()) return false;
  members.erase(oldest);
  return true;
}

// True when something is new.
bool Cluster::State::Merge(const SyncDelta::Member& news) {
  const MemberRecord& told = news.record;
  if (told.id.IsZero() || told.state == MemberState::kSuspect || revoked.contains(told.id)) return false;
  if (IsSelf(told.id)) {
    MergeSelf(told);
    return false;
  }
  Member* member = Find(told.id);
  if (member == nullptr) {
    // Of one that is unknown and gone nothing needs to be known; of one that is here, its facts come first.
    if (told.state != MemberState::kAlive || !news.has_facts || !MakeRoomForMember()) return false;
    Member fresh;
    fresh.record = told;
    if (!news.has_links) fresh.record.links.clear();
    fresh.heard = fresh.unlinked_since = now;
    members.emplace(told.id, std::move(fresh));
    WhoIsBack();
    return true;
  }
  MemberRecord& mine = member->record;
  bool changed = false;
  const bool restarted = told.boot() > mine.boot();
  if (Supersedes(told.incarnation, told.state, mine.incarnation, mine.state)) {
    const bool was_here = member->here();
    mine.incarnation = told.incarnation;
    mine.nonce = told.nonce;
    mine.state = told.state;
    changed = true;
    if (!member->here()) {
      hurry = true;
      member->state_since = now;
      member->age_then_s = told.state_age_s;
      member->suspect = false;
      if (links.contains(told.id))
        Act(Disconnect{told.id, std::string("it is ") + std::string(MemberStateName(told.state))});
    } else if (!was_here) {
      member->heard = member->unlinked_since = now;
      member->connect_wait = 0;
      WhoIsBack();
    }
    if (restarted) mine.facts_version = mine.links_version = 0;
  }
  if (told.boot() != mine.boot()) return changed;
  if (news.has_facts && told.facts_version > mine.facts_version) {
    WeightsChanged(mine.facts, told.facts);
    mine.facts = told.facts;
    mine.facts_version = told.facts_version;
    changed = hurry = true;
  }
  if (news.has_links && told.links_version > mine.links_version) {
    mine.links = told.links;
    mine.links_version = told.links_version;
    changed = true;
  }
  return changed;
}

// Somebody more may have room for what could not be placed.
void Cluster::State::WhoIsBack() {
  hurry = true;
  for (auto& [model, one] : care) one.next_try = std::min(one.next_try, now);
}

// Only what a placement that waits could use of it, lest it be tried again and again while others fetch something.
void Cluster::State::WeightsChanged(const MemberFacts& before, const MemberFacts& after) {
  if (before.models == after.models) return;
  hurry = true;
  for (auto& [model, one] : care) {
    const auto placed = placements.find(model);
    if (placed == placements.end()) continue;
    const auto of_it = [&, name = model](const MemberFacts& facts) {
      std::vector<const ModelHolding*> holdings;
      for (const ModelHolding& holding : facts.models) {
        if (holding.name == name || holding.fingerprint == placed->second.record.request.fingerprint) {
          holdings.push_back(&holding);
        }
      }
      return holdings;
    };
    const auto was = of_it(before), is = of_it(after);
    const auto same = [](const ModelHolding* a, const ModelHolding* b) { return *a == *b; };
    if (!std::equal(was.begin(), was.end(), is.begin(), is.end(), same)) one.next_try = std::min(one.next_try, now);
  }
}

// Others say of us what is not so: we are here, or there was a start of ours that we do not remember.
void Cluster::State::MergeSelf(const MemberRecord& told) {
  const MemberRecord& mine = self().record;
  const bool accused = told.state != MemberState::kAlive && told.incarnation >= mine.incarnation;
  const bool other_start = told.incarnation > mine.incarnation ||
                           (told.incarnation == mine.incarnation && told.nonce != mine.nonce && told.nonce != 0);
  if (accused) Act(Note{"the others had given this node up: it says that it is here"});
  if (accused || other_start) Refute(told.incarnation);
}

void Cluster::State::Refute(std::uint64_t at_least) {
  if (left) return;
  ++counters.refutations;
  MemberRecord& mine = self().record;
  const std::uint64_t boot = std::max(at_least >> 16, mine.boot());
  // A start that we do not remember had other stages: ours is a later one.
  mine.incarnation = boot > mine.boot() ? (boot + 1) << 16 : std::max(at_least, mine.incarnation) + 1;
  ++mine.facts_version;
  ++mine.links_version;
  SpreadSelf(true, true);
  members_changed = true;
}

Status Cluster::State::TakeRevocation(std::span<const std::uint8_t> bytes, bool spread) {
  if (bytes.size() > kClusterRevocationBytesMax || !options.verify_revocation) {
    return Error{ErrorCode::kInvalidArgument, "not a revocation of this cluster"};
  }
  const std::uint64_t hash = HashOf(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  if (revocations.contains(hash)) return {};
  if (revocations.size() >= kClusterRevocationsMax) return Error{ErrorCode::kOverloaded, "too many revocations"};
  const std::optional<NodeId> subject = options.verify_revocation(bytes);
  if (!subject) return Error{ErrorCode::kInvalidArgument, "not a revocation of this cluster"};
  revocations.emplace(hash, std::vector<std::uint8_t>(bytes.begin(), bytes.end()));
  revoked.insert(*subject);
  Act(Revoked{*subject, {bytes.begin(), bytes.end()}});
  if (spread) TellAll(SyncDelta{{}, {}, {{bytes.begin(), bytes.end()}}});
  if (IsSelf(*subject)) {
    left = left_told = true;
    Act(Left{"this node was thrown out of the cluster"});
    return {};
  }
  if (links.contains(*subject)) Act(Disconnect{*subject, "it was thrown out of the cluster"});
  if (Member* member = Find(*subject); member != nullptr && member->here()) {
    member->record.state = MemberState::kLeft;
    member->state_since = now;
    member->suspect = false;
  }
  members_changed = true;
  return {};
}

}  // namespace shoal
