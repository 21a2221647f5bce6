// The ways from the stages of one simulated process to the copies of them at other nodes, as node/copy_outlet keeps
// them with threads: a stream is opened, says hello, and takes two frames at a time; one that is lost is opened again,
// ever more seldom, under another session. Knows no caches.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "sim/fake_model.h"
#include "sim/network.h"
#include "transport/transport.h"
#include "wire/copy_messages.h"

namespace shoal::sim {

class SimOutlets;

class SimOutlet : public std::enable_shared_from_this<SimOutlet> {
 public:
  SimOutlet(SimOutlets& all, int peer, CopyHello hello);
  ~SimOutlet() { Stop(); }
  void Stop();

  // As pipeline/copy_sink.
  std::uint64_t session() const { return session_; }
  bool TryPut(FrameBytes& frame);
  struct Told {
    std::uint64_t session = 0;
    SimStage::CopyKnows knows;
    std::optional<FrameBytes> waiting;
  };
  Told told;

 private:
  friend class SimOutlets;
  void Open();
  void OnOpened();
  void OnEnd();
  void Pass();
  void Later(DurationUs delay, void (SimOutlet::*what)());

  SimOutlets& all_;
  const int peer_;
  const CopyHello hello_;
  StreamId stream_ = 0;  // 0: none
  std::uint64_t session_ = 0, sent_ = 0;
  DurationUs again_us_ = 0;
  std::deque<FrameBytes> frames_;
  bool passing_ = false, stopped_ = false;
};

class SimOutlets {
 public:
  SimOutlets(Network& network, int self) : network_(network), self_(self) {}
  std::shared_ptr<SimOutlet> Start(int peer, CopyHello hello);

  bool Knows(StreamId stream) const { return by_stream_.contains(stream); }
  void OnOpened(StreamId stream);
  void OnStreamEnd(StreamId stream);

 private:
  friend class SimOutlet;
  Network& network_;
  const int self_;
  std::map<StreamId, SimOutlet*> by_stream_;
  std::uint64_t sessions_ = 0;
};

}  // namespace shoal::sim
