// The simulated world below the nodes: virtual time, processes that crash and freeze, and streams between them.
//
// A stream is what libp2p gives over TCP: frames arrive whole, in order, once, or the stream ends. Every stream has
// delays of its own, so that streams overtake each other; loss shows as a late frame. A cut holds what is on its way
// until it heals or the connection of the pair times out, at either side when its own patience ends. Knows no frames'
// contents, no cluster and no pipeline. Everything random comes from the history's seed.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "runtime/loop.h"
#include "runtime/rng.h"
#include "transport/transport.h"

namespace shoal::sim {

inline constexpr DurationUs kMillisecond = 1'000, kSecond = 1'000'000;
inline constexpr DurationUs kStreamOpenUs = 3 * kSecond;  // a stream that is not open by then is given up

using StreamId = std::uint64_t;
enum class Protocol : std::uint8_t { kControl = 1, kPipe = 2, kGenerate = 3, kCopy = 4, kKeep = 5, kAnswer = 6 };

struct LinkQuality {
  DurationUs delay_us = 500, jitter_us = 200;  // one way
  double loss = 0;                             // of a frame: it then comes after a retransmission timeout or several
};

// What a node's process hears. Called in its own time: never while it is frozen or gone.
class Process {
 public:
  virtual ~Process() = default;
  virtual void OnConnected(int peer) = 0;  // a connection is up; the lower number opens the control stream
  virtual void OnOpened(StreamId stream) = 0;
  virtual void OnStream(StreamId stream, Protocol protocol, int peer) = 0;
  virtual void OnFrame(StreamId stream, FrameBytes frame) = 0;
  // The other end has closed it, or it was lost. Not after Close.
  virtual void OnStreamEnd(StreamId stream) = 0;
};

class Network {
 public:
  using Task = Loop::Task;

  Network(int nodes, std::uint64_t seed);

  TimeUs now() const { return loop_.clock().Now(); }
  Rng& rng() { return rng_; }
  int nodes() const { return static_cast<int>(nodes_.size()); }
  void RunUntil(TimeUs time) { loop_.RunUntil(time); }
  std::uint64_t events() const { return events_; }
  // A hash of everything that happened so far, in order.
  std::uint64_t trace() const { return trace_; }
  void Trace(std::uint64_t what, std::uint64_t detail);

  // --- Faults and other things from outside; `task` runs whatever state nodes are in.
  void After(DurationUs delay, Task task) { loop_.After(delay, std::move(task)); }
  void Start(int node, Process* process);
  // `silent`: power loss, peers are not told; else the kernel closes its connections.
  void Crash(int node, bool silent);
  void Freeze(int node);
  void Thaw(int node);
  void Cut(int a, int b);
  // What `from` sends does not arrive, acknowledgements neither: the connection dies, unless it heals before.
  void CutOneWay(int from, int to);
  void Heal(int a, int b);
  void SetQuality(int a, int b, LinkQuality quality);
  // Both run, can reach each other as fast as usual, and nothing of that has changed since `time`.
  bool IsCalmSince(int a, int b, TimeUs time);
  bool running(int node) const { return at(node).process != nullptr; }
  bool frozen(int node) const { return at(node).frozen; }

  // --- For processes.
  // Runs `task` in the process that `node` is now, not in a later one; a frozen one runs it when it thaws.
  void Post(int node, DurationUs delay, Task task);
  // Dials; OnConnected at the lower number if the other can be reached.
  void Connect(int from, int to);
  // OnStream there, then OnOpened here; or OnStreamEnd.
  StreamId Open(int from, int to, Protocol protocol);
  // Nothing happens when the stream is closed here.
  void Send(int node, StreamId stream, FrameBytes frame);
  void Close(int node, StreamId stream);
  // Frames that the other end has not read yet.
  std::size_t Unread(int node, StreamId stream);
  // Every stream to `peer`; each ends here as well (OnStreamEnd, later) but for those of `quiet`.
  void Disconnect(int node, int peer, Protocol quiet);

 private:
  enum class What : std::uint8_t { kOpen, kOpened, kFrame, kEnd };
  struct Item {
    TimeUs due = 0;
    What what = What::kFrame;
    FrameBytes frame;
  };
  struct Side {
    int node = 0;
    std::uint64_t start = 0;  // which of the node's processes
    bool open = true;
    std::deque<Item> inbox;  // on its way here
    bool pumping = false, stalled = false;
    TimeUs last_due = 0;
  };
  struct Stream {
    Protocol protocol = Protocol::kControl;
    Side sides[2];
  };
  struct Node {
    Process* process = nullptr;
    std::uint64_t start = 0;
    bool frozen = false, dark = false;  // dark: without power
    TimeUs changed = 0;
    std::vector<Task> held;
  };
  struct Pair {
    LinkQuality quality;
    bool cut_up = false, cut_down = false;  // from the lower number to the higher; the other way
    bool cut() const { return cut_up || cut_down; }
    bool dying = false;  // a timeout runs
    TimeUs changed = 0;
    std::set<StreamId> streams;
  };

  const Node& at(int node) const { return nodes_[static_cast<std::size_t>(node)]; }
  Node& at(int node) { return nodes_[static_cast<std::size_t>(node)]; }
  Pair& pair(int a, int b) { return pairs_[static_cast<std::size_t>(std::min(a, b) * nodes() + std::max(a, b))]; }
  bool& cut(int from, int to) { return from < to ? pair(from, to).cut_up : pair(from, to).cut_down; }
  DurationUs Delay(const Pair& between);
  void Run(int node, std::uint64_t start, const Task& task);
  void Push(StreamId id, int side, What what, FrameBytes frame);
  void Pump(StreamId id, int side);
  void Deliver(StreamId id, int side, Item item);
  void Stall(StreamId id, int side);
  void Ping(int node, int peer);
  void Resume(int a, int b);
  void Reset(int node, std::uint64_t start, int peer);
  void EndSide(StreamId id, int side);
  void Forget(StreamId id);
  Stream* Find(StreamId id);
  int SideOf(const Stream& stream, int node) const;

  SimulatedLoop loop_;
  Rng rng_;
  std::vector<Node> nodes_;
  std::vector<Pair> pairs_;
  std::map<StreamId, std::unique_ptr<Stream>> streams_;
  StreamId last_stream_ = 0;
  std::uint64_t events_ = 0, trace_ = 0;
};

}  // namespace shoal::sim
