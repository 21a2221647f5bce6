// The stages of one simulated process: loaded from a disk that may be slow, linked by pipe streams, run in order,
// drained and dropped, as node/StageHost and pipeline/StageWorker do it with threads.
//
// Knows the cluster only through what it is told to do and its hooks.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "cluster/cluster.h"
#include "sim/checks.h"
#include "sim/copies.h"
#include "sim/fake_model.h"
#include "sim/hardware.h"
#include "sim/head.h"
#include "sim/network.h"
#include "sim/outlets.h"
#include "wire/stream_messages.h"

namespace shoal::sim {

NodeId NodeIdOf(int number);
int NumberOf(const NodeId& id);

inline constexpr std::string_view kEngineFailure = "the engine failed";

class SimHost {
 public:
  struct Hooks {
    std::function<void(const std::string& model, Epoch epoch, std::int32_t index, Status status)> on_ready;
    std::function<void(const std::string& model, Epoch epoch)> on_broken;
    std::function<void(const std::string& model, LayerRange layers, Status status)> on_copy_ready;
    std::function<bool(const std::string& model, Epoch epoch)> may_serve;
  };
  using Accepted = std::function<void(const Result<GenerationId>&)>;

  SimHost(Network& network, Checks& checks, int self, const std::vector<FakeModel>& models, const Hardware& hardware,
          CopyRules rules, Hooks hooks);
  ~SimHost();

  // --- What the cluster wants done.
  void Load(const PlacementRecord& placement, std::int32_t index, const StageSource& source);
  void Activate(const PlacementRecord& placement, const std::vector<std::int32_t>& indices);
  void Unload(const std::string& model, Epoch epoch, std::int32_t index);
  SimCopies& copies() { return copies_; }
  // Who keeps copies of each stage of a placement: those of the stages here are told what the stages' caches hold.
  void SetCopies(const std::string& model, Epoch epoch, const std::vector<std::vector<NodeId>>& copies);

  // --- Generations, at the head. `accepted` may be called before it returns, or when the head is linked.
  void Generate(const std::string& model, Epoch epoch, GenerationRequest request, Accepted accepted,
                SimHead::Sink sink);
  void Cancel(const std::string& model, Epoch epoch, GenerationId id);

  // --- Pipe streams, and copy streams opened here.
  void OnStream(StreamId stream, int peer) { fresh_[stream] = peer; }
  bool Knows(StreamId stream) const;
  void OnOpened(StreamId stream);
  void OnFrame(StreamId stream, FrameBytes frame);
  void OnStreamEnd(StreamId stream);

  std::string Describe() const;  // for a person
  std::size_t loaded() const { return hosted_.size(); }
  std::uint64_t bytes_loaded() const;  // of stages and copies
  std::uint64_t batches() const { return batches_; }

 private:
  using Key = std::tuple<std::string, Epoch, std::int32_t>;
  using PipeKey = std::tuple<int, Epoch, PipeKind, StageIndex, StageIndex>;
  struct Hosted;
  enum class Use : std::uint8_t { kNext, kResults, kInput, kResultsOf };
  struct Route {
    Key key;
    Use use = Use::kNext;
  };
  struct Waiting {  // a stream whose hello was read and that nobody has taken yet
    StreamId stream = 0;
    std::vector<FrameBytes> early;
    bool ended = false;
  };
  struct Outgoing {  // a stream that a stage opens
    StreamId stream = 0;
    std::int32_t to = 0;
    bool up = false, lost = false;
  };

  Hosted* Find(const Key& key);
  // Runs `task` later, if this very stage is still here.
  void Later(const Key& key, DurationUs delay, std::function<void(Hosted&)> task);
  void ActivateOne(const Key& key);
  std::unique_ptr<SimStage> TakeOver(Hosted& hosted);
  void TakeOutlets(Hosted& hosted);
  void Link(const Key& key);
  void LinkAll(Epoch epoch);
  // Pipe streams to other nodes, or to this one.
  StreamId OpenTo(int peer);
  void SendOn(StreamId stream, FrameBytes frame);
  void CloseOn(StreamId stream);
  bool Dial(const Key& key, Hosted& hosted, Outgoing& outgoing, std::int32_t to, Use use);
  void DialFailed(const Key& key, Outgoing& outgoing);
  bool Take(const Key& key, int peer, const PipeHello& hello, Use use, Waiting* taken);
  void Begin(const Key& key, Hosted& hosted);
  void StartHead(const Key& key, Hosted& hosted);
  void Process(const Key& key);
  bool HandleFrame(const Key& key, Hosted& hosted, const FrameBytes& frame);
  bool PassBy(Hosted& hosted, BatchMessage batch);
  void Compute(const Key& key, Hosted& hosted, BatchMessage batch);
  bool Report(Hosted& hosted, FrameBytes frame);
  bool PassOn(Hosted& hosted, FrameBytes frame);
  void EndWorker(Hosted& hosted, const std::string& why);
  void End(Hosted& hosted);
  void TellCopies(Hosted& hosted, std::size_t rows_more);

  Network& network_;
  Checks& checks_;
  const int self_;
  const std::vector<FakeModel>& models_;
  const Hardware& hardware_;
  const Hooks hooks_;
  SimOutlets outlets_;  // outlives the stages
  std::map<Key, std::unique_ptr<Hosted>> hosted_;
  std::map<StreamId, Route> routes_;
  std::map<StreamId, int> fresh_;
  std::map<PipeKey, Waiting> waiting_;
  std::map<StreamId, PipeKey> waiting_by_stream_;
  std::set<Epoch> closed_;
  std::map<std::string, Epoch> activated_;  // the highest live epoch this process was told of
  SimCopies copies_;
  std::uint64_t batches_ = 0, serials_ = 0, local_streams_ = 0;
};

}  // namespace shoal::sim
