// Which opened packets are news, and which deserve an answer: against playback, repetition and floods.
//
// A packet is fresh when it answers one that we sent in the last seconds, or is later than all that its instance said
// before, or (of an instance not known yet) was sent in the last minutes by its sender's clock. Pure: the caller passes
// the time. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "discovery/beacon.h"
#include "discovery/beacon_packet.h"
#include "runtime/clock.h"

namespace shoal {

class BeaconFilter {
 public:
  static constexpr DurationUs kEchoAgeMaxUs = 10'000'000;
  static constexpr DurationUs kAnswerEveryUs = 30'000'000;      // to one node, once it is known
  static constexpr DurationUs kAnswerYoungEveryUs = 1'000'000;  // while it has been up for less than kYoungUs
  static constexpr DurationUs kYoungUs = 30'000'000;
  static constexpr DurationUs kSameSequenceUs = 2'000'000;
  static constexpr std::size_t kSourcesMax = 4;  // of one packet that came by several ways
  static constexpr double kAnswersPerS = 100;
  static constexpr double kPacketsPerS = 1'000;

  explicit BeaconFilter(InstanceNumber own_instance);

  // We sent a packet to all with this sequence.
  void Sent(std::uint64_t sequence, TimeUs now);

  enum class Verdict : std::uint8_t {
    kProven,    // quotes one of ours: its sender is there now
    kFresh,     // believed by sequence or by its clock; somebody may have recorded it minutes ago
    kUnproven,  // worth an answer, for the answer to that would prove it
    kReplayed,  // heard before, or older than what was heard
  };
  // Judges one packet from `source` (host as text) and remembers it, unless it is unproven.
  Verdict Judge(const BeaconPacket& packet, const std::string& source, std::int64_t unix_ms, TimeUs now);

  // Whether to answer `packet` now; counts as answered when so.
  bool MayAnswer(const BeaconPacket& packet, const std::string& source, TimeUs now);

  // Whether to look at one more packet now, of whatever kind; a machine flooded with packets leaves them to the system.
  bool MayReceive(TimeUs now);

  std::size_t peers() const { return peers_.size(); }

 private:
  struct Peer {
    InstanceNumber instance = 0;
    std::uint64_t sequence = 0;
    std::vector<std::string> sources;  // of the packet with that sequence
    TimeUs heard = 0;
  };
  struct Answered {
    std::string source;
    TimeUs at = 0;
  };
  struct SentPacket {
    std::uint64_t sequence = 0;
    TimeUs at = 0;
  };
  // Tokens that come back with time, up to one second's worth.
  struct Bucket {
    double tokens = 0;
    TimeUs filled = 0;
    bool Take(double per_s, TimeUs now);
  };

  bool IsEcho(const BeaconPacket& packet, TimeUs now) const;
  void Remember(const BeaconPacket& packet, const std::string& source, TimeUs now);

  InstanceNumber own_instance_;
  std::array<SentPacket, 128> sent_{};  // a ring: at the shortest interval, as many as kEchoAgeMaxUs needs
  std::size_t sent_next_ = 0;
  std::map<NodeId, Peer> peers_;
  std::map<NodeId, Answered> answered_;
  Bucket answers_, packets_;
};

}  // namespace shoal
