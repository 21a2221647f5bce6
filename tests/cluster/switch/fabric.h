// The rules of an Ethernet switch whose links can be made bad: which port a frame goes to, when, and whether at all.
//
// A link is directed, from one port to another; each has its own delay, jitter, loss, rate and bounded queue. Reads no
// clock, device or socket: frames and times (nanoseconds of any steady clock) go in, frames that are due come out.
// Random choices come from one seeded generator. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace shoal::test_switch {

using PortId = std::uint32_t;

struct LinkSettings {
  std::int64_t delay_us = 0;
  std::int64_t jitter_us = 0;  // each frame waits delay plus or minus up to this; frames keep their order
  double loss = 0;             // probabilities, 0..1
  double duplicate = 0;
  double reorder = 0;  // such a frame waits reorder_us longer and may be overtaken
  std::int64_t reorder_us = 1000;
  bool cut = false;
  bool drop_multicast = false;        // IPv4 and IPv6 multicast, but not what finds neighbours (ARP, ICMPv6 133-137)
  bool drop_broadcast = false;        // Ethernet broadcast, but not ARP
  std::int64_t rate_bytes_per_s = 0;  // 0: no limit
  std::int64_t queue_bytes_max = 16 << 20;
};

struct LinkCounters {
  std::uint64_t frames = 0, bytes = 0;  // handed to the receiving port
  std::uint64_t lost = 0, cut = 0, multicast = 0, full = 0, duplicated = 0, reordered = 0;
  std::int64_t queued_bytes = 0;
  std::int64_t late_ns = 0;  // sum over the frames handed on: how long after its time each left the queue
};

// `offload` is what the sending device said about checksum and segmentation; it goes to the receiver as it came.
struct Frame {
  std::vector<std::uint8_t> offload, ethernet;
};

struct Delivery {
  PortId to = 0;
  std::shared_ptr<const Frame> frame;
};

class Fabric {
 public:
  explicit Fabric(std::uint64_t seed) : random_(seed) {}

  // Links to and from the new port start with the settings that were last given for all links.
  void AddPort(PortId port);
  // Frames on their way to it or from it are gone.
  void RemovePort(PortId port);

  // Null: no such link. The pointer lives until a port is added or removed.
  LinkSettings* Settings(PortId from, PortId to);
  const LinkCounters* Counters(PortId from, PortId to) const;
  LinkSettings& defaults() { return defaults_; }

  // A frame that `from` sent. Frames shorter than an Ethernet header are ignored.
  void Receive(PortId from, std::shared_ptr<const Frame> frame, std::int64_t now_ns);
  // The next frame whose time has come; empty when there is none.
  std::optional<Delivery> PopDue(std::int64_t now_ns);
  // When PopDue has something next; empty: not before another Receive.
  std::optional<std::int64_t> NextDue() const;

 private:
  using Mac = std::array<std::uint8_t, 6>;
  struct Link {
    LinkSettings settings;
    LinkCounters counters;
    std::int64_t busy_until_ns = 0;  // of the rate limit
    std::int64_t last_due_ns = 0;    // frames keep their order
  };
  struct Waiting {
    std::int64_t due_ns = 0;
    std::uint64_t order = 0;
    PortId from = 0, to = 0;
    std::shared_ptr<const Frame> frame;
    bool operator>(const Waiting& other) const {
      return due_ns != other.due_ns ? due_ns > other.due_ns : order > other.order;
    }
  };
  using LinkKey = std::pair<PortId, PortId>;

  void Learn(const Mac& mac, PortId port);
  void Send(const LinkKey& key, Link& link, const std::shared_ptr<const Frame>& frame, std::int64_t now_ns);
  void Queue(const LinkKey& key, Link& link, const std::shared_ptr<const Frame>& frame, std::int64_t now_ns,
             std::int64_t extra_ns);
  bool Chance(double probability);

  LinkSettings defaults_;
  std::vector<PortId> ports_;
  std::map<LinkKey, Link> links_;
  std::map<Mac, PortId> learned_;  // at most kMacsMax
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> waiting_;
  std::uint64_t order_ = 0;
  std::mt19937_64 random_;
};

}  // namespace shoal::test_switch
