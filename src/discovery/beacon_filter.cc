// The tables of the filter: bounded, the longest unheard goes first.
#include "discovery/beacon_filter.h"

#include <algorithm>
#include <cstdlib>

namespace shoal {
namespace {

// Drops the entry of `table` with the least `time`. A linear search, once for each packet of somebody who has the
// cluster's secret and is not in a full table.
template <typename Table, typename Time>
void DropOldest(Table& table, Time time) {
  auto oldest = table.begin();
  for (auto at = table.begin(); at != table.end(); ++at) {
    if (time(at->second) < time(oldest->second)) oldest = at;
  }
  if (oldest != table.end()) table.erase(oldest);
}

}  // namespace

BeaconFilter::BeaconFilter(InstanceNumber own_instance) : own_instance_(own_instance) {}

void BeaconFilter::Sent(std::uint64_t sequence, TimeUs now) {
  sent_[sent_next_] = {sequence, now};
  sent_next_ = (sent_next_ + 1) % sent_.size();
}

bool BeaconFilter::IsEcho(const BeaconPacket& packet, TimeUs now) const {
  if (packet.echo_instance != own_instance_ || packet.echo_sequence == 0) return false;
  return std::any_of(sent_.begin(), sent_.end(), [&](const SentPacket& sent) {
    return sent.sequence == packet.echo_sequence && now - sent.at <= kEchoAgeMaxUs;
  });
}

void BeaconFilter::Remember(const BeaconPacket& packet, const std::string& source, TimeUs now) {
  if (peers_.count(packet.node) == 0 && peers_.size() >= kBeaconPeersMax) {
    DropOldest(peers_, [](const Peer& peer) { return peer.heard; });
  }
  peers_[packet.node] = {packet.instance, packet.sequence, {source}, now};
}

BeaconFilter::Verdict BeaconFilter::Judge(const BeaconPacket& packet, const std::string& source, std::int64_t unix_ms,
                                          TimeUs now) {
  const bool is_echo = IsEcho(packet, now);
  const auto known = peers_.find(packet.node);
  if (known != peers_.end() && known->second.instance == packet.instance) {
    Peer& peer = known->second;
    if (packet.sequence < peer.sequence) return Verdict::kReplayed;
    if (packet.sequence == peer.sequence) {
      // The same packet by another way: another address at which its sender is.
      const bool is_new = std::find(peer.sources.begin(), peer.sources.end(), source) == peer.sources.end();
      if (!is_new || peer.sources.size() >= kSourcesMax || now - peer.heard > kSameSequenceUs) {
        return Verdict::kReplayed;
      }
      peer.sources.push_back(source);
      return is_echo ? Verdict::kProven : Verdict::kFresh;
    }
    Remember(packet, source, now);
    return is_echo ? Verdict::kProven : Verdict::kFresh;
  }
  // Clocks of others may say anything: so no subtraction that could overflow.
  const bool in_window = packet.unix_ms > unix_ms - kBeaconWindowMs && packet.unix_ms < unix_ms + kBeaconWindowMs;
  if (!is_echo && !in_window) return Verdict::kUnproven;
  Remember(packet, source, now);
  return is_echo ? Verdict::kProven : Verdict::kFresh;
}

bool BeaconFilter::MayAnswer(const BeaconPacket& packet, const std::string& source, TimeUs now) {
  const auto known = answered_.find(packet.node);
  if (known != answered_.end()) {
    const DurationUs since = now - known->second.at;
    const bool hurried = known->second.source != source || packet.uptime_us < kYoungUs;
    if (since < (hurried ? kAnswerYoungEveryUs : kAnswerEveryUs)) return false;
  }
  if (!answers_.Take(kAnswersPerS, now)) return false;
  if (known == answered_.end() && answered_.size() >= kBeaconPeersMax) {
    DropOldest(answered_, [](const Answered& answered) { return answered.at; });
  }
  answered_[packet.node] = {source, now};
  return true;
}

bool BeaconFilter::MayReceive(TimeUs now) { return packets_.Take(kPacketsPerS, now); }

bool BeaconFilter::Bucket::Take(double per_s, TimeUs now) {
  const double due = static_cast<double>(now - filled) * 1e-6 * per_s;
  tokens = filled == 0 ? per_s : std::min(per_s, tokens + due);
  filled = now;
  if (tokens < 1) return false;
  tokens -= 1;
  return true;
}

}  // namespace shoal
