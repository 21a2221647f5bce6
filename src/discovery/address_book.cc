// The book itself: entries by node, their waits, their limits. The JSON of peers.json is address_book_json.cc.
#include "discovery/address_book.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace shoal {
namespace {

bool IsFresh(AddressSource source) { return source == AddressSource::kBeacon || source == AddressSource::kMdns; }
bool IsHearsay(AddressSource source) {
  return source == AddressSource::kGossiped || source == AddressSource::kRemembered;
}

// What is worth dialling first.
auto DialRank(const KnownAddress& known) {
  return std::make_tuple(known.failures, -known.success_unix_s, known.source, known.endpoint);
}

}  // namespace

std::string_view AddressSourceName(AddressSource source) {
  switch (source) {
    case AddressSource::kGiven: return "given";
    case AddressSource::kBeacon: return "beacon";
    case AddressSource::kMdns: return "mdns";
    case AddressSource::kGossiped: return "gossiped";
    case AddressSource::kRemembered: return "remembered";
  }
  return "unknown";
}

AddressBook::AddressBook(const NodeId& self, std::uint64_t seed) : self_(self), rng_(seed) {}

AddressBook::Entry* AddressBook::Find(Entries& entries, const Endpoint& endpoint) {
  const auto at = std::find_if(entries.begin(), entries.end(),
                               [&](const Entry& entry) { return entry.known.endpoint == endpoint; });
  return at == entries.end() ? nullptr : &*at;
}

// The entries of `node`, made when absent; nothing when the book is full of nodes that are worth more.
AddressBook::Entries* AddressBook::EntriesFor(const NodeId& node, AddressSource source) {
  if (const auto known = nodes_.find(node); known != nodes_.end()) return &known->second;
  const std::size_t named = nodes_.size() - nodes_.count(NodeId{});
  if (node.IsZero() || named < kBookNodesMax) return &nodes_[node];
  auto worst = nodes_.end();
  std::tuple<std::int64_t, TimeUs> worst_worth;
  for (auto at = nodes_.begin(); at != nodes_.end(); ++at) {
    if (at->first.IsZero() || connected_.count(at->first) > 0) continue;
    std::tuple<std::int64_t, TimeUs> worth{0, 0};  // latest success, then latest news
    bool given = false;
    for (const Entry& entry : at->second) {
      given = given || entry.known.source == AddressSource::kGiven;
      worth = std::max(worth, std::make_tuple(entry.known.success_unix_s, entry.learned));
    }
    if (!given && (worst == nodes_.end() || worth < worst_worth)) std::tie(worst, worst_worth) = std::tie(at, worth);
  }
  if (worst == nodes_.end() || (IsHearsay(source) && std::get<0>(worst_worth) > 0)) return nullptr;
  nodes_.erase(worst);
  return &nodes_[node];
}

// Whether one more fits, after forgetting the least useful where needed.
bool AddressBook::MakeRoom(Entries& entries, std::size_t count_max, AddressSource source) {
  if (entries.size() < count_max) return true;
  const auto worth = [](const Entry& entry) {
    return std::make_tuple(entry.known.success_unix_s, -static_cast<std::int64_t>(entry.known.failures), entry.learned);
  };
  Entry* worst = nullptr;
  for (Entry& entry : entries) {
    if (entry.known.source == AddressSource::kGiven) continue;
    if (worst == nullptr || worth(entry) < worth(*worst)) worst = &entry;
  }
  if (worst == nullptr || (IsHearsay(source) && worst->known.success_unix_s > 0)) return false;
  entries.erase(entries.begin() + (worst - entries.data()));
  return true;
}

void AddressBook::Learn(const NodeId& node, const Endpoint& endpoint, AddressSource source, TimeUs now) {
  if (node == self_ || !IsDialable(endpoint)) return;
  Entries* const entries = EntriesFor(node, source);
  if (entries == nullptr) return;
  if (Entry* const known = Find(*entries, endpoint)) {
    known->known.source = std::min(known->known.source, source);
    known->learned = now;
    if (!IsFresh(source)) return;
    const TimeUs soonest = known->attempted ? std::max(now, *known->attempted + kDialFreshWaitUs) : now;
    known->due = std::min(known->due, soonest);
    if (soonest <= now) known->in_flight = false;  // it is there now: what is on its way may be long lost
    return;
  }
  const std::size_t count_max = node.IsZero() ? kBookGivenMax : kBookAddressesPerNodeMax;
  if (MakeRoom(*entries, count_max, source)) {
    Entry entry;
    entry.known = {endpoint, source};
    entry.owner = node;
    entry.due = entry.learned = entry.wanted = now;
    entries->push_back(std::move(entry));
  }
  if (entries->empty()) nodes_.erase(node);
}

void AddressBook::Connected(const NodeId& node) { connected_.insert(node); }

void AddressBook::Disconnected(const NodeId& node, TimeUs now) {
  connected_.erase(node);
  for (auto& [id, entries] : nodes_) {
    for (Entry& entry : entries) {
      if (id != node && entry.owner != node) continue;
      entry.known.failures = 0;
      entry.due = entry.wanted = now;
    }
  }
}

bool AddressBook::IsConnected(const NodeId& node) const { return connected_.count(node) > 0; }

bool AddressBook::MayDial(const NodeId& node, const Entry& entry) const {
  return connected_.count(node) == 0 && connected_.count(entry.owner) == 0 && entry.owner != self_;
}

// Exponential backoff: the wait doubles with each failure and is spread by a quarter either way, so that nodes which
// lost each other at the same moment do not knock at the same moments.
void AddressBook::Delay(Entry& entry, TimeUs now) {
  entry.in_flight = false;
  entry.known.failures = std::min<std::uint32_t>(entry.known.failures + 1, 1000);
  const double doubled = std::ldexp(static_cast<double>(kDialBackoffMinUs), static_cast<int>(entry.known.failures) - 1);
  const auto longest = static_cast<double>(WaitMax(entry, now, kDialBackoffMaxUs));
  entry.due = now + static_cast<DurationUs>(std::min(doubled, longest) * (0.75 + 0.5 * rng_.Uniform()));
}

DurationUs AddressBook::WaitMax(const Entry& entry, TimeUs now, DurationUs otherwise) {
  return std::clamp((now - entry.wanted) / kDialWaitShare, kDialWaitYoungUs, otherwise);
}

TimeUs AddressBook::FailsAt(const Entry& entry) {
  return *entry.attempted + 2 * WaitMax(entry, *entry.attempted, kDialTimeoutUs / 2);
}

// Dials that nobody reported on have failed.
void AddressBook::Expire(TimeUs now) {
  for (auto& [node, entries] : nodes_) {
    for (Entry& entry : entries) {
      if (entry.in_flight && now >= FailsAt(entry)) Delay(entry, now);
    }
  }
}

std::vector<Dial> AddressBook::Due(TimeUs now) {
  Expire(now);
  std::vector<std::pair<NodeId, Entry*>> due;
  for (auto& [node, entries] : nodes_) {
    for (Entry& entry : entries) {
      if (!entry.in_flight && entry.due <= now && MayDial(node, entry)) due.emplace_back(node, &entry);
    }
  }
  std::sort(due.begin(), due.end(), [](const auto& a, const auto& b) {
    return std::make_pair(DialRank(a.second->known), a.first) < std::make_pair(DialRank(b.second->known), b.first);
  });
  if (due.size() > kDialsAtOnceMax) due.resize(kDialsAtOnceMax);
  std::vector<Dial> dials;
  for (const auto& [node, entry] : due) {
    entry->in_flight = true;
    entry->attempted = now;
    dials.push_back({node, entry->known.endpoint, entry->known.source});
  }
  return dials;
}

std::optional<TimeUs> AddressBook::NextDue() const {
  std::optional<TimeUs> next;
  for (const auto& [node, entries] : nodes_) {
    for (const Entry& entry : entries) {
      if (!MayDial(node, entry)) continue;
      const TimeUs at = entry.in_flight ? FailsAt(entry) : entry.due;
      next = next ? std::min(*next, at) : at;
    }
  }
  return next;
}

void AddressBook::Succeeded(const Dial& dial, const NodeId& reached, std::int64_t unix_s) {
  const auto node = nodes_.find(dial.node);
  if (node == nodes_.end()) return;
  Entry* const entry = Find(node->second, dial.endpoint);
  if (entry == nullptr) return;
  entry->in_flight = false;
  if (dial.node.IsZero() || reached == dial.node) {
    entry->owner = reached;
    entry->known.failures = 0;
    entry->known.success_unix_s = std::max<std::int64_t>(unix_s, 1);
    return;
  }
  // Another node lives there now.
  Entry moved = *entry;
  node->second.erase(node->second.begin() + (entry - node->second.data()));
  if (node->second.empty()) nodes_.erase(node);
  if (reached == self_) return;
  Learn(reached, moved.known.endpoint, moved.known.source, moved.learned);
  const auto home = nodes_.find(reached);
  if (home == nodes_.end()) return;
  if (Entry* const settled = Find(home->second, dial.endpoint)) {
    settled->known.success_unix_s = std::max<std::int64_t>(unix_s, 1);
    settled->known.failures = 0;
  }
}

void AddressBook::Failed(const Dial& dial, TimeUs now) {
  const auto node = nodes_.find(dial.node);
  if (node == nodes_.end()) return;
  Entry* const entry = Find(node->second, dial.endpoint);
  if (entry != nullptr && entry->in_flight) Delay(*entry, now);
}

void AddressBook::Forget(const NodeId& node) {
  if (node.IsZero()) return;
  nodes_.erase(node);
  const auto given = nodes_.find(NodeId{});
  if (given == nodes_.end()) return;
  // A person gave these; whoever answers there next will be let in or not.
  for (Entry& entry : given->second) {
    if (entry.owner == node) entry.owner = {};
  }
}

std::vector<KnownAddress> AddressBook::AddressesOf(const NodeId& node) const {
  std::vector<KnownAddress> addresses;
  for (const auto& [id, entries] : nodes_) {
    for (const Entry& entry : entries) {
      const bool elsewhere = std::any_of(addresses.begin(), addresses.end(), [&](const KnownAddress& known) {
        return known.endpoint == entry.known.endpoint;
      });
      if (entry.owner == node && !elsewhere) addresses.push_back(entry.known);
    }
  }
  std::sort(addresses.begin(), addresses.end(), [](const KnownAddress& a, const KnownAddress& b) {
    return std::make_tuple(-a.success_unix_s, a.source, a.endpoint) <
           std::make_tuple(-b.success_unix_s, b.source, b.endpoint);
  });
  return addresses;
}

std::vector<NodeId> AddressBook::Nodes() const {
  std::set<NodeId> nodes;
  for (const auto& [id, entries] : nodes_) {
    for (const Entry& entry : entries) nodes.insert(entry.owner);
  }
  nodes.erase(NodeId{});
  nodes.erase(self_);
  return {nodes.begin(), nodes.end()};
}

}  // namespace shoal
