// Who is here: heartbeats, silence, the question to the others, death.
#include <algorithm>
#include <cmath>
#include <utility>

#include "cluster/state.h"

namespace shoal {
namespace {

constexpr double kPhiSuspect = 8.0;
constexpr DurationUs kClosedSuspectUs = 150'000;      // a link that ended may come back at once
constexpr DurationUs kUnlinkedSuspectUs = 1'000'000;  // one that never was up
constexpr DurationUs kRoundUs = 1'000'000;     // for the others' answers whether they hear a silent member, at most
constexpr DurationUs kRoundMinUs = 400'000;    // until they are asked again when all have said that they do not
constexpr DurationUs kRoundAloneUs = 250'000;  // there is nobody to ask, and its link has ended
constexpr int kRoundsToDeath = 2;
constexpr std::size_t kAskedMax = 5;
constexpr DurationUs kHeardElsewhereMinUs = 150'000, kHeardElsewhereMaxUs = 3'000'000;  // then they are asked again
constexpr DurationUs kConnectWaitMinUs = 1'000'000, kConnectWaitMaxUs = 4'000'000;
constexpr DurationUs kConnectSecondUs = 3'000'000;  // the higher id leaves the lower one that long
constexpr DurationUs kSyncEveryUs = 1'000'000;      // with one peer
constexpr DurationUs kRttMaxUs = 60'000'000;
constexpr std::size_t kCalmMembers = 16;
constexpr DurationUs kHurryShareUs = 30'000;  // of a heartbeat's interval, for each member, while a model is placed
constexpr DurationUs kHurryMinUs = 200'000;

bool Notable(std::uint32_t before, std::uint32_t after) {
  return std::max(before, after) > std::min(before, after) + std::max<std::uint32_t>(200, before / 4);
}

}  // namespace

// While a model is placed somebody may wait for a member that is gone: few members then speak more often, at no more
// bytes than kCalmMembers of them in a cluster without work.
DurationUs Cluster::State::HeartbeatInterval() const {
  const auto here = static_cast<DurationUs>(std::max(HereCount(), links.size() + 1));
  const auto calm = static_cast<DurationUs>(kCalmMembers);
  const DurationUs interval = options.heartbeat_us * std::max(calm, here) / calm;
  const bool works = std::any_of(placements.begin(), placements.end(),
                                 [](const auto& entry) { return entry.second.record.state == PlacementState::kLive; });
  return works ? std::min(interval, std::max(kHurryMinUs, kHurryShareUs * here)) : interval;
}

void Cluster::State::TickMembership() {
  for (auto& [id, link] : links) {
    if (now >= link.heartbeat_due) SendHeartbeat(id, link);
  }
  std::vector<NodeId> ids;
  for (const auto& [id, member] : members) ids.push_back(id);
  for (const NodeId& id : ids) {
    Member* member = Find(id);
    if (member == nullptr || IsSelf(id)) continue;
    if (!member->here()) {
      if (now - member->state_since > options.tombstone_us) {
        members.erase(id);
      } else if (member->record.state == MemberState::kDead) {
        CheckConnect(id, *member);  // it may be back
      }
      continue;
    }
    CheckSilence(id, *member);
    if (member->here()) CheckConnect(id, *member);
  }
  ReportLinks();
}

void Cluster::State::SendHeartbeat(const NodeId& to, Link& link) {
  const DurationUs interval = HeartbeatInterval();
  // A little jitter, so that a cluster's heartbeats do not fall into step.
  link.heartbeat_due = now + interval - static_cast<DurationUs>(rng.Below(static_cast<std::uint64_t>(interval) / 10));
  Heartbeat heartbeat;
  heartbeat.sequence = ++link.sequence;
  heartbeat.interval_ms = static_cast<std::uint32_t>(interval / 1000);
  heartbeat.incarnation = self().record.incarnation;
  heartbeat.digest = Digest();
  heartbeat.stamp_us = now;
  heartbeat.echo_us = link.peer_stamp;
  heartbeat.echo_held_us = static_cast<std::uint32_t>(std::clamp<DurationUs>(now - link.peer_stamp_at, 0, kRttMaxUs));
  heartbeat.lag_ms = static_cast<std::uint16_t>(std::min<std::uint32_t>(lag_ms, 60'000));
  Tell(to, heartbeat);
}

void Cluster::State::On(const NodeId& from, const Hello& hello) {
  if (hello.self.id != from || hello.self.state != MemberState::kAlive) return;
  Merge({hello.self, true, false});
  if (Member* member = Find(from)) {
    // We hold it dead: it is told, and comes back under a higher incarnation.
    if (!member->here()) return Tell(from, SyncDelta{{NewsOf(*member, false, false)}, {}, {}});
    member->heard = now;
    Revive(*member);
  }
  if (hello.digest != Digest()) SendSyncAsk(from, false);
}

void Cluster::State::On(const NodeId& from, const Heartbeat& heartbeat) {
  const auto found = links.find(from);
  if (found == links.end()) return;
  Link& link = found->second;
  link.detector.SetInterval(std::clamp<DurationUs>(heartbeat.interval_ms, 50, 60'000) * 1000);
  link.detector.Heard(now - link.heard);
  link.heard = now;
  link.peer_stamp = heartbeat.stamp_us;
  link.peer_stamp_at = now;
  if (heartbeat.echo_us > 0 && heartbeat.echo_us <= now) {
    const DurationUs rtt = now - heartbeat.echo_us - heartbeat.echo_held_us;
    if (rtt >= 0 && rtt < kRttMaxUs) {
      const auto sample = static_cast<std::uint32_t>(std::max<DurationUs>(rtt, 1));
      const std::uint32_t before = link.rtt_us;
      link.round_trips.Add(sample);
      link.rtt_us = link.round_trips.smoothed();
      // Where there are many, what drifts is not worth telling all of them.
      if (Notable(HereCount() <= kCalmMembers ? link.rtt_told : before, link.rtt_us)) links_changed = true;
      if (before == 0) links_report_due = std::min(links_report_due, now + 500'000);
    }
  }
  Member* member = Find(from);
  if (member == nullptr) return SendSyncAsk(from, false);
  if (!member->here() || heartbeat.incarnation < member->record.incarnation) {
    if (now >= link.sync_after) {
      link.sync_after = now + kSyncEveryUs;
      Tell(from, SyncDelta{{NewsOf(*member, false, false)}, {}, {}});
    }
    return;
  }
  member->heard = now;
  member->lag_ms = heartbeat.lag_ms;
  Revive(*member);
  if (link.prompt_left > 0 && link.rtt_us == 0) {  // the round trip should be known soon
    --link.prompt_left;
    SendHeartbeat(from, link);
  }
  link.mismatches = heartbeat.digest == Digest() ? 0 : link.mismatches + 1;
  if (link.mismatches >= 2 && now >= link.sync_after) SendSyncAsk(from, false);
}

void Cluster::State::Revive(Member& member) {
  member.rounds_silent = member.rounds_heard = 0;
  member.round_ends = 0;
  if (!member.suspect) return;
  member.suspect = false;
  member.silence = Silence::kNone;
  members_changed = true;
}

// ---- Silence --------------------------------------------------------------------------------------------------------

// How this node itself hears `id`.
Hearing Cluster::State::HearingOf(const NodeId& id) const {
  if (IsSelf(id)) return Hearing::kHeard;
  if (const auto link = links.find(id); link != links.end()) {
    return link->second.detector.Phi(now - link->second.heard) < kPhiSuspect ? Hearing::kHeard : Hearing::kSilent;
  }
  const auto member = members.find(id);
  return member != members.end() && member->second.link_ended ? Hearing::kClosed : Hearing::kUnlinked;
}

void Cluster::State::CheckSilence(const NodeId& id, Member& member) {
  const Hearing hearing = HearingOf(id);
  if (!member.suspect) {
    if (hearing == Hearing::kHeard) return;
    const DurationUs wait = hearing == Hearing::kClosed ? kClosedSuspectUs : kUnlinkedSuspectUs;
    if (hearing != Hearing::kSilent && now - std::max(member.unlinked_since, member.heard) < wait) return;
    member.suspect = true;
    member.silence = hearing == Hearing::kSilent ? Silence::kFrozen : Silence::kLinkClosed;
    ++counters.suspicions;
    members_changed = true;
    member.rounds_silent = member.rounds_heard = 0;
    // Its connection may be dead and it not: after a change of address, or of a network that was away.
    if (hearing == Hearing::kSilent) Act(Connect{id, member.record.facts.addresses});
    return StartRound(id, member);
  }
  if (now < member.round_ends) return;
  EndRound(id, member);
}

void Cluster::State::StartRound(const NodeId& id, Member& member) {
  ++member.round;
  member.heard_by_others = false;
  member.all_closed = HearingOf(id) == Hearing::kClosed;
  member.unanswered.clear();
  std::vector<NodeId> others;
  for (const auto& [other, link] : links) {
    const Member* known = Find(other);
    if (other != id && known != nullptr && known->here() && !known->suspect) others.push_back(other);
  }
  for (std::size_t i = 0; i < kAskedMax && !others.empty(); ++i) {
    const std::size_t pick = rng.Below(others.size());
    member.unanswered.insert(others[pick]);
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  // Of three or more that lose each other all at once it is oneself who was cut off, more likely than the others.
  const bool alone = member.unanswered.empty();
  const DurationUs wait = !alone              ? kRoundMinUs
                          : HereCount() > 2   ? kRoundUs
                          : member.all_closed ? kRoundAloneUs
                                              : kRoundMinUs;
  member.round_again = now + wait;
  member.round_ends = member.unanswered.empty() ? member.round_again : now + kRoundUs;
  for (const NodeId& other : std::set(member.unanswered)) Tell(other, HearsAsk{id, member.round});
}

void Cluster::State::On(const NodeId& from, const HearsAsk& ask) {
  Tell(from, HearsAnswer{ask.subject, ask.round, HearingOf(ask.subject)});
}

void Cluster::State::On(const NodeId& from, const HearsAnswer& answer) {
  Member* member = Find(answer.subject);
  if (member == nullptr || !member->here() || !member->suspect || answer.round != member->round) return;
  if (member->unanswered.erase(from) == 0) return;
  member->heard_by_others = member->heard_by_others || answer.hearing == Hearing::kHeard;
  member->all_closed = member->all_closed && answer.hearing == Hearing::kClosed;
  if (!member->unanswered.empty()) return;
  // A process that ends closes its links with everybody, and they with it: there is nothing more to wait for.
  if (member->all_closed && !links.contains(answer.subject)) return DeclareDead(answer.subject, *member);
  if (member->heard_by_others) return EndRound(answer.subject, *member);
  member->round_ends = member->round_again;
}

void Cluster::State::EndRound(const NodeId& id, Member& member) {
  if (member.heard_by_others) {  // alive, but not for us; or they have not noticed yet
    member.rounds_silent = 0;
    member.heard_by_others = false;
    member.unanswered.clear();
    member.round_ends = now + std::min(kHeardElsewhereMaxUs, kHeardElsewhereMinUs << std::min(member.rounds_heard, 8));
    ++member.rounds_heard;
    member.asks_again = true;
    return;
  }
  if (!std::exchange(member.asks_again, false) && ++member.rounds_silent >= kRoundsToDeath) {
    return DeclareDead(id, member);
  }
  StartRound(id, member);
}

void Cluster::State::DeclareDead(const NodeId& id, Member& member) {
  ++counters.deaths_declared;
  Act(Note{"node '" + NameOf(id) + "' is gone: nobody hears it"});
  member.record.state = MemberState::kDead;
  member.state_since = now;
  member.age_then_s = 0;
  member.suspect = false;
  members_changed = hurry = true;
  const SyncDelta news{{NewsOf(member, false, false)}, {}, {}};
  for (const auto& [other, link] : links) {
    if (other != id) Tell(other, news);
  }
  if (links.contains(id)) Act(Disconnect{id, "it is silent"});
}

// Of two, the lower id dials at once, the other when that did not help.
void Cluster::State::CheckConnect(const NodeId& id, Member& member) {
  if (links.contains(id)) return;
  if (member.connect_wait == 0) {
    member.connect_wait = kConnectWaitMinUs;
    member.connect_due = options.self < id ? now : now + kConnectSecondUs;
  }
  if (now < member.connect_due) return;
  Act(Connect{id, member.record.facts.addresses});
  member.connect_due = now + member.connect_wait;
  member.connect_wait = std::min(kConnectWaitMaxUs, 2 * member.connect_wait);
}

void Cluster::State::ReportLinks() {
  if (!links_changed || now < links_report_due) return;
  links_changed = false;
  const auto factor = static_cast<DurationUs>(std::max(kCalmMembers, HereCount()));
  links_report_due = now + options.links_report_us * factor / static_cast<DurationUs>(kCalmMembers);
  std::vector<LinkFacts> facts;
  for (auto& [id, link] : links) {
    link.rtt_told = link.rtt_us;
    if (link.rtt_us > 0) facts.push_back({id, link.rtt_us, link.bytes_per_s});
  }
  if (facts == self().record.links) return;
  self().record.links = std::move(facts);
  ++self().record.links_version;
  SpreadSelf(false, true);
}

}  // namespace shoal
