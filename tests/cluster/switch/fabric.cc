// Where and when frames go: learning, loss, delay, rate and order. See fabric.h.
#include "fabric.h"

#include <algorithm>

namespace shoal::test_switch {
namespace {

constexpr std::size_t kHeaderBytes = 14;
constexpr std::size_t kMacsMax = 1024;
constexpr std::uint16_t kArp = 0x0806, kIpv6 = 0x86dd;
constexpr std::uint8_t kIcmpv6 = 58, kRouterSolicitation = 133, kRedirect = 137;

enum class Cast { kOne, kMany, kAll, kNeighbours };

// To whom a frame is addressed. What finds neighbours is told apart: without it no address would ever be resolved, and
// access points that keep multicast from the air answer it themselves.
Cast CastOf(const std::vector<std::uint8_t>& frame) {
  if (!(frame[0] & 1)) return Cast::kOne;
  const auto type = static_cast<std::uint16_t>(frame[12] << 8 | frame[13]);
  if (type == kArp) return Cast::kNeighbours;
  constexpr std::size_t kNextHeader = kHeaderBytes + 6, kIcmpType = kHeaderBytes + 40;
  if (type == kIpv6 && frame.size() > kIcmpType && frame[kNextHeader] == kIcmpv6 &&
      frame[kIcmpType] >= kRouterSolicitation && frame[kIcmpType] <= kRedirect) {
    return Cast::kNeighbours;
  }
  return std::all_of(frame.begin(), frame.begin() + 6, [](std::uint8_t b) { return b == 0xff; }) ? Cast::kAll
                                                                                                 : Cast::kMany;
}

}  // namespace

void Fabric::AddPort(PortId port) {
  for (const PortId other : ports_) {
    links_[{port, other}].settings = defaults_;
    links_[{other, port}].settings = defaults_;
  }
  ports_.push_back(port);
}

void Fabric::RemovePort(PortId port) {
  std::erase(ports_, port);
  std::erase_if(links_, [&](const auto& link) { return link.first.first == port || link.first.second == port; });
  std::erase_if(learned_, [&](const auto& entry) { return entry.second == port; });
}

LinkSettings* Fabric::Settings(PortId from, PortId to) {
  const auto found = links_.find({from, to});
  return found == links_.end() ? nullptr : &found->second.settings;
}

const LinkCounters* Fabric::Counters(PortId from, PortId to) const {
  const auto found = links_.find({from, to});
  return found == links_.end() ? nullptr : &found->second.counters;
}

void Fabric::Learn(const Mac& mac, PortId port) {
  const auto found = learned_.find(mac);
  if (found != learned_.end()) {
    found->second = port;
  } else if (learned_.size() < kMacsMax) {
    learned_.emplace(mac, port);
  }
}

void Fabric::Receive(PortId from, std::shared_ptr<const Frame> frame, std::int64_t now_ns) {
  const std::vector<std::uint8_t>& bytes = frame->ethernet;
  if (bytes.size() < kHeaderBytes) return;
  Mac to_mac, from_mac;
  std::copy_n(bytes.begin(), 6, to_mac.begin());
  std::copy_n(bytes.begin() + 6, 6, from_mac.begin());
  if (!(from_mac[0] & 1)) Learn(from_mac, from);
  const auto known = learned_.find(to_mac);
  for (auto& [key, link] : links_) {
    if (key.first != from || (known != learned_.end() && known->second != key.second)) continue;
    Send(key, link, frame, now_ns);
  }
}

void Fabric::Send(const LinkKey& key, Link& link, const std::shared_ptr<const Frame>& frame, std::int64_t now_ns) {
  const LinkSettings& settings = link.settings;
  if (settings.cut) {
    ++link.counters.cut;
    return;
  }
  const Cast cast = CastOf(frame->ethernet);
  if ((cast == Cast::kMany && settings.drop_multicast) || (cast == Cast::kAll && settings.drop_broadcast)) {
    ++link.counters.multicast;
    return;
  }
  if (Chance(settings.loss)) {
    ++link.counters.lost;
    return;
  }
  const bool late = Chance(settings.reorder);
  if (late) ++link.counters.reordered;
  Queue(key, link, frame, now_ns, late ? settings.reorder_us * 1000 : 0);
  if (Chance(settings.duplicate)) {
    ++link.counters.duplicated;
    Queue(key, link, frame, now_ns, 0);
  }
}

void Fabric::Queue(const LinkKey& key, Link& link, const std::shared_ptr<const Frame>& frame, std::int64_t now_ns,
                   std::int64_t extra_ns) {
  const LinkSettings& settings = link.settings;
  const auto bytes = static_cast<std::int64_t>(frame->ethernet.size());
  if (link.counters.queued_bytes + bytes > settings.queue_bytes_max) {
    ++link.counters.full;
    return;
  }
  std::int64_t due_ns = now_ns;
  if (settings.rate_bytes_per_s > 0) {
    link.busy_until_ns = std::max(link.busy_until_ns, now_ns) + bytes * 1'000'000'000 / settings.rate_bytes_per_s;
    due_ns = link.busy_until_ns;
  }
  due_ns += settings.delay_us * 1000;
  if (settings.jitter_us > 0) {
    std::uniform_int_distribution<std::int64_t> jitter_ns(-settings.jitter_us * 1000, settings.jitter_us * 1000);
    due_ns += jitter_ns(random_);
  }
  if (extra_ns > 0) {
    due_ns += extra_ns;
  } else {
    due_ns = link.last_due_ns = std::max({due_ns, link.last_due_ns, now_ns});
  }
  link.counters.queued_bytes += bytes;
  waiting_.push({.due_ns = due_ns, .order = order_++, .from = key.first, .to = key.second, .frame = frame});
}

std::optional<Delivery> Fabric::PopDue(std::int64_t now_ns) {
  while (!waiting_.empty() && waiting_.top().due_ns <= now_ns) {
    const Waiting next = waiting_.top();
    waiting_.pop();
    const auto link = links_.find({next.from, next.to});
    if (link == links_.end()) continue;
    LinkCounters& counters = link->second.counters;
    const std::size_t bytes = next.frame->ethernet.size();
    counters.queued_bytes -= static_cast<std::int64_t>(bytes);
    if (link->second.settings.cut) {
      ++counters.cut;
      continue;
    }
    ++counters.frames;
    counters.bytes += bytes;
    counters.late_ns += now_ns - next.due_ns;
    return Delivery{next.to, next.frame};
  }
  return std::nullopt;
}

std::optional<std::int64_t> Fabric::NextDue() const {
  if (waiting_.empty()) return std::nullopt;
  return waiting_.top().due_ns;
}

bool Fabric::Chance(double probability) {
  return probability > 0 && std::uniform_real_distribution<double>(0, 1)(random_) < probability;
}

}  // namespace shoal::test_switch
