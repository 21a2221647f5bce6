// The copies that a simulated process keeps of stages elsewhere, as node/StageHost does: loaded, told over a stream
// what the stage's cache holds, taken over or dropped. Knows no placements but those that it is told to load.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "cluster/cluster.h"
#include "sim/fake_model.h"
#include "sim/hardware.h"
#include "sim/network.h"

namespace shoal::sim {

struct CopyRules {
  bool break_rewind = false;  // what a copy holds stays where it is told of other rows
};

class SimCopies {
 public:
  using OnReady = std::function<void(const std::string& model, LayerRange layers, Status status)>;
  SimCopies(Network& network, int self, const std::vector<FakeModel>& models, const Hardware& hardware, CopyRules rules,
            OnReady on_ready);

  void Load(const PlacementRecord& placement, std::int32_t index);
  void Drop(const std::string& model, LayerRange layers);
  // It is one no more. Null: not there, or not loaded.
  std::unique_ptr<SimStage> Take(const std::string& model, LayerRange layers);
  std::int32_t layers() const;  // of all, loaded or loading

  // --- Copy streams that others open.
  void OnStream(StreamId stream) { feeds_[stream] = {}; }
  bool Knows(StreamId stream) const { return feeds_.contains(stream); }
  void OnFrame(StreamId stream, FrameBytes frame);
  void OnStreamEnd(StreamId stream) { feeds_.erase(stream); }

 private:
  using Key = std::tuple<std::string, std::int32_t, std::int32_t>;  // model, layers
  struct Copy {
    std::uint64_t serial = 0;
    std::uint64_t fingerprint = 0, options_hash = 0;
    std::unique_ptr<SimStage> stage;  // once loaded
    StreamId feeding = 0;             // which stream tells it what it holds
    std::vector<FrameBytes> early;    // that came before it was loaded
  };
  struct Feed {
    bool greeted = false;
    Key key;
    std::uint64_t serial = 0;  // of the copy
  };
  bool Greet(StreamId stream, Feed& feed, const FrameBytes& frame);
  bool TakeFrame(Copy& copy, const FrameBytes& frame);

  Network& network_;
  const int self_;
  const std::vector<FakeModel>& models_;
  const Hardware& hardware_;
  const CopyRules rules_;
  const OnReady on_ready_;
  std::map<Key, Copy> copies_;
  std::map<StreamId, Feed> feeds_;
  std::uint64_t serials_ = 0;
};

}  // namespace shoal::sim
