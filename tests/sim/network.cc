// Streams as queues of items with due times, one queue a direction.
#include "sim/network.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "cluster/member.h"
#include "wire/frame.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kRetransmitUs = 200 * kMillisecond;
constexpr int kRetransmitsMax = 5;
// How long a connection lives on which nothing gets through: somewhere between.
constexpr DurationUs kPatienceMinUs = 8 * kSecond, kPatienceMaxUs = 30 * kSecond;
constexpr std::uint64_t kPingUs = 15 * kSecond;
constexpr DurationUs kUsualDelayMaxUs = 20 * kMillisecond;
constexpr DurationUs kOwnStackUs = 100;  // of a node's own doings

std::uint64_t Code(int node, std::uint64_t what) { return static_cast<std::uint64_t>(node) << 8 | what; }

}  // namespace

Network::Network(int nodes, std::uint64_t seed)
    : rng_(seed), nodes_(static_cast<std::size_t>(nodes)), pairs_(static_cast<std::size_t>(nodes * nodes)) {}

void Network::Trace(std::uint64_t what, std::uint64_t detail) {
  ++events_;
  trace_ = MixHash(MixHash(trace_ ^ what, detail), static_cast<std::uint64_t>(now()));
}

// ---- Processes ------------------------------------------------------------------------------------------------------

void Network::Start(int node, Process* process) {
  Node& n = at(node);
  SHOAL_CHECK(n.process == nullptr && process != nullptr);
  n.process = process;
  ++n.start;
  n.changed = now();
  n.dark = false;
  Trace(Code(node, 1), n.start);
  for (int other = 0; other < nodes(); ++other) {
    if (other == node) continue;
    Resume(node, other);  // what still comes for the process before is answered by a reset now
    Ping(node, other);
  }
}

// libp2p pings every connection: a peer that has nothing to say on one learns so that it is gone.
void Network::Ping(int node, int peer) {
  loop_.After(static_cast<DurationUs>(rng_.Below(kPingUs)), [this, node, peer] {
    if (pair(node, peer).cut()) return Ping(node, peer);
    std::set<std::uint64_t> gone;
    for (const StreamId id : pair(node, peer).streams) {
      const Side& side = Find(id)->sides[SideOf(*Find(id), node)];
      if (side.start != at(node).start) gone.insert(side.start);
    }
    for (const std::uint64_t start : gone) Reset(node, start, peer);
  });
}

void Network::Crash(int node, bool silent) {
  Node& n = at(node);
  n.process = nullptr;
  n.frozen = false;
  n.dark = silent;
  n.held.clear();
  Trace(Code(node, silent ? 2 : 3), n.start);
  for (int other = 0; other < nodes(); ++other) {
    if (other == node) continue;
    for (const StreamId id : std::set<StreamId>(pair(node, other).streams)) {
      Stream* stream = Find(id);
      const int side = SideOf(*stream, node);
      if (!stream->sides[side].open) continue;
      stream->sides[side].open = false;
      if (!silent) Push(id, 1 - side, What::kEnd, {});
      if (!stream->sides[1 - side].open) Forget(id);
    }
  }
}

void Network::Freeze(int node) {
  if (!running(node) || frozen(node)) return;
  at(node).frozen = true;
  at(node).changed = now();
  Trace(Code(node, 4), 0);
}

void Network::Thaw(int node) {
  Node& n = at(node);
  if (!n.frozen) return;
  n.frozen = false;
  n.changed = now();
  Trace(Code(node, 5), n.held.size());
  const std::vector<Task> held = std::exchange(n.held, {});
  const std::uint64_t start = n.start;
  for (const Task& task : held) Run(node, start, task);
}

void Network::Post(int node, DurationUs delay, Task task) {
  loop_.After(delay, [this, node, start = at(node).start, task = std::move(task)] { Run(node, start, task); });
}

void Network::Run(int node, std::uint64_t start, const Task& task) {
  Node& n = at(node);
  if (n.process == nullptr || n.start != start) return;
  if (n.frozen) return n.held.push_back(task);
  Trace(Code(node, 6), 0);
  task();
}

// ---- Streams --------------------------------------------------------------------------------------------------------

DurationUs Network::Delay(const Pair& between) {
  const LinkQuality& quality = between.quality;
  DurationUs delay =
      quality.delay_us + static_cast<DurationUs>(rng_.Below(static_cast<std::uint64_t>(quality.jitter_us) + 1));
  for (int tries = 0; quality.loss > 0 && tries < kRetransmitsMax && rng_.Uniform() < quality.loss; ++tries) {
    delay += kRetransmitUs << tries;
  }
  return delay;
}

Network::Stream* Network::Find(StreamId id) {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

int Network::SideOf(const Stream& stream, int node) const { return stream.sides[0].node == node ? 0 : 1; }

void Network::Forget(StreamId id) {
  const Stream* stream = Find(id);
  pair(stream->sides[0].node, stream->sides[1].node).streams.erase(id);
  streams_.erase(id);
}

void Network::Connect(int from, int to) {
  Pair& between = pair(from, to);
  const DurationUs handshake = 3 * Delay(between);
  loop_.After(handshake, [this, from, to] {
    // Who is stopped does not answer; who is cut off does not hear.
    if (!running(from) || !running(to) || frozen(from) || frozen(to) || pair(from, to).cut()) return;
    const int low = std::min(from, to), high = std::max(from, to);
    Post(low, 0, [this, low, high] { at(low).process->OnConnected(high); });
  });
}

StreamId Network::Open(int from, int to, Protocol protocol) {
  SHOAL_CHECK(from != to);
  const StreamId id = ++last_stream_;
  auto stream = std::make_unique<Stream>();
  stream->protocol = protocol;
  stream->sides[0].node = from;
  stream->sides[0].start = at(from).start;
  stream->sides[1].node = to;
  stream->sides[1].start = at(to).start;
  streams_.emplace(id, std::move(stream));
  pair(from, to).streams.insert(id);
  Push(id, 1, What::kOpen, {});
  return id;
}

void Network::Send(int node, StreamId id, FrameBytes frame) {
  const Stream* stream = Find(id);
  if (stream == nullptr) return;
  const int side = SideOf(*stream, node);
  if (stream->sides[side].open) Push(id, 1 - side, What::kFrame, std::move(frame));
}

void Network::Close(int node, StreamId id) {
  Stream* stream = Find(id);
  if (stream == nullptr) return;
  const int side = SideOf(*stream, node);
  if (!stream->sides[side].open) return;
  stream->sides[side].open = false;
  stream->sides[side].inbox.clear();
  if (!stream->sides[1 - side].open) return Forget(id);
  Push(id, 1 - side, What::kEnd, {});
}

std::size_t Network::Unread(int node, StreamId id) {
  const Stream* stream = Find(id);
  return stream == nullptr ? 0 : stream->sides[1 - SideOf(*stream, node)].inbox.size();
}

void Network::Disconnect(int node, int peer, Protocol quiet) {
  pair(node, peer).changed = now();
  for (const StreamId id : std::set<StreamId>(pair(node, peer).streams)) {
    const Stream* stream = Find(id);
    const bool open = stream->sides[SideOf(*stream, node)].open;
    const bool told = open && stream->protocol != quiet;
    Close(node, id);
    if (told) Post(node, kOwnStackUs, [this, node, id] { at(node).process->OnStreamEnd(id); });
  }
}

void Network::Push(StreamId id, int to, What what, FrameBytes frame) {
  Stream& stream = *Find(id);
  Side& side = stream.sides[to];
  if (!side.open && at(side.node).start == side.start && !at(side.node).dark) return;  // it has closed
  Item item;
  item.due = side.last_due = std::max(side.last_due, now() + Delay(pair(stream.sides[0].node, stream.sides[1].node)));
  item.what = what;
  item.frame = std::move(frame);
  side.inbox.push_back(std::move(item));
  if (side.pumping || side.stalled) return;
  side.pumping = true;
  loop_.After(side.inbox.front().due - now(), [this, id, to] { Pump(id, to); });
}

void Network::Pump(StreamId id, int to) {
  Stream* stream = Find(id);
  if (stream == nullptr) return;
  Side& side = stream->sides[to];
  side.pumping = false;
  if (side.inbox.empty()) return;
  Side& sender = stream->sides[1 - to];
  const Node& receiver = at(side.node);
  if (cut(sender.node, side.node) || receiver.dark) return Stall(id, to);
  if (receiver.process == nullptr || receiver.start != side.start) {  // the machine is there, the process is not
    return Reset(side.node, side.start, sender.node);
  }
  if (!side.open) return side.inbox.clear();
  Item item = std::move(side.inbox.front());
  side.inbox.pop_front();
  if (!side.inbox.empty()) {
    side.pumping = true;
    loop_.After(std::max<DurationUs>(side.inbox.front().due - now(), 0), [this, id, to] { Pump(id, to); });
  }
  if (!receiver.frozen) return Deliver(id, to, std::move(item));
  const auto shared = std::make_shared<Item>(std::move(item));
  Post(side.node, 0, [this, id, to, shared] { Deliver(id, to, std::move(*shared)); });
}

// The machine answers that the process is gone which had the connection: all streams on it end.
void Network::Reset(int node, std::uint64_t start, int peer) {
  for (const StreamId id : std::set<StreamId>(pair(node, peer).streams)) {
    Stream* stream = Find(id);
    const int gone = SideOf(*stream, node);
    if (stream->sides[gone].start != start) continue;
    stream->sides[gone].inbox.clear();
    stream->sides[gone].open = false;
    if (stream->sides[1 - gone].open) {
      Push(id, 1 - gone, What::kEnd, {});
    } else {
      Forget(id);
    }
  }
}

void Network::Deliver(StreamId id, int to, Item item) {
  Stream* stream = Find(id);
  if (stream == nullptr || !stream->sides[to].open) return;
  const int node = stream->sides[to].node;
  Process& process = *at(node).process;
  switch (item.what) {
    case What::kOpen:
      Trace(Code(node, 7), id);
      Push(id, 1 - to, What::kOpened, {});
      return process.OnStream(id, stream->protocol, stream->sides[1 - to].node);
    case What::kOpened: Trace(Code(node, 8), id); return process.OnOpened(id);
    case What::kFrame:
      Trace(Code(node, 9), id << 32 | Crc32c(item.frame));
      return process.OnFrame(id, std::move(item.frame));
    case What::kEnd: return EndSide(id, to);
  }
}

void Network::EndSide(StreamId id, int to) {
  Stream* stream = Find(id);
  if (stream == nullptr || !stream->sides[to].open) return;
  stream->sides[to].open = false;
  const int node = stream->sides[to].node;
  const bool here = running(node) && at(node).start == stream->sides[to].start;
  if (!stream->sides[1 - to].open) Forget(id);
  if (!here) return;
  Trace(Code(node, 10), id);
  at(node).process->OnStreamEnd(id);
}

// Nothing gets through: each side gives all streams of the pair up when its own patience ends, unless it heals before.
void Network::Stall(StreamId id, int to) {
  Stream& stream = *Find(id);
  stream.sides[to].stalled = true;
  const int a = stream.sides[0].node, b = stream.sides[1].node;
  Pair& between = pair(a, b);
  if (between.dying) return;
  between.dying = true;
  for (const int node : {a, b}) {
    const auto range = static_cast<std::uint64_t>(kPatienceMaxUs - kPatienceMinUs);
    const DurationUs patience = kPatienceMinUs + static_cast<DurationUs>(rng_.Below(range));
    loop_.After(patience, [this, a, b, node] {
      Pair& now_between = pair(a, b);
      now_between.dying = false;
      const auto stuck = [&](StreamId one) { return Find(one)->sides[0].stalled || Find(one)->sides[1].stalled; };
      if (std::none_of(now_between.streams.begin(), now_between.streams.end(), stuck)) return;  // it healed
      // They share one connection: what stalls one ends all.
      now_between.changed = now();
      for (const StreamId one : std::set<StreamId>(now_between.streams)) {
        const Stream& lost = *Find(one);
        const int side = SideOf(lost, node);
        if (!lost.sides[side].open || at(node).start != lost.sides[side].start || !running(node)) continue;
        Post(node, 0, [this, one, side] {
          EndSide(one, side);
          const Stream* left = Find(one);
          if (left != nullptr && left->sides[1 - side].open) Push(one, 1 - side, What::kEnd, {});  // its reset, later
        });
      }
    });
  }
}

void Network::Resume(int a, int b) {
  for (const StreamId id : pair(a, b).streams) {
    for (const int side : {0, 1}) {
      Side& stalled = Find(id)->sides[side];
      if (!stalled.stalled || cut(Find(id)->sides[1 - side].node, stalled.node)) continue;
      stalled.stalled = false;
      stalled.pumping = true;
      const DurationUs backoff = static_cast<DurationUs>(rng_.Below(2 * kSecond));
      loop_.After(backoff, [this, id, side] { Pump(id, side); });
    }
  }
}

void Network::SetQuality(int a, int b, LinkQuality quality) {
  pair(a, b).quality = quality;
  pair(a, b).changed = now();
}

bool Network::IsCalmSince(int a, int b, TimeUs time) {
  const auto process = [&](int node) { return running(node) && !frozen(node) && at(node).changed < time; };
  if (!process(a) || !process(b)) return false;
  if (a == b) return true;
  const Pair& between = pair(a, b);
  return !between.cut() && between.changed < time && between.quality.loss == 0 &&
         between.quality.delay_us <= kUsualDelayMaxUs;
}

void Network::Cut(int a, int b) {
  CutOneWay(a, b);
  CutOneWay(b, a);
}

void Network::CutOneWay(int from, int to) {
  if (from == to || std::exchange(cut(from, to), true)) return;
  pair(from, to).changed = now();
  Trace(Code(from, 11), static_cast<std::uint64_t>(to));
}

void Network::Heal(int a, int b) {
  if (a == b || !pair(a, b).cut()) return;
  cut(a, b) = cut(b, a) = false;
  pair(a, b).changed = now();
  Trace(Code(a, 12), static_cast<std::uint64_t>(b));
  Resume(a, b);
}

}  // namespace shoal::sim
