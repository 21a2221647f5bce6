// The weights of a node of a cluster: its store, what it tells other members of it, and how it gets layers it lacks.
//
// Knows no placements: a stage asks for the layers of a model, and gets a model file whose bytes are here. Any thread;
// what fetches blocks.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/metrics.h"
#include "base/result.h"
#include "cluster/member.h"
#include "node/model_library.h"
#include "transport/stream_link.h"
#include "weights/peers.h"
#include "weights/source_helper.h"
#include "weights/store.h"

namespace shoal {

inline constexpr int kWeightStreamsMax = 64;  // that members have open here

struct NodeWeightsOptions {
  StoreOptions store;
  NodeId self;
  // Other members that are here, with their names.
  std::function<std::vector<std::pair<NodeId, std::string>>()> members;
  // A stream of weights (node/peers.h), on the connection for bulk transfers. Blocks.
  std::function<Result<StreamLink>(const NodeId&)> open;
  // A task on a thread of its own (false: too many run), which ends soon once `stopping` says so.
  std::function<bool(std::function<void()>)> run;
  std::function<bool()> stopping;
};

class NodeWeights {
 public:
  // Both must outlive it. Errors: as WeightStore::Open.
  static Result<std::unique_ptr<NodeWeights>> Open(ModelLibrary& library, MetricsRegistry& metrics,
                                                   NodeWeightsOptions options);

  // A model whose layers [first, last), and what else a stage of them needs, are on this node: a file of the library,
  // or the store, into which members give what is missing, or the model's source on the network where it has one. As
  // long as someone holds the file, they stay. Errors: kNotFound (nobody has the model), kUnavailable (nobody has a
  // layer), kStale (its source has another file now), kCancelled, kIo. A file that has changed since
  // it was read, or layers that the disk has spoiled since an earlier start, are as if they were not there.
  Result<LibraryModel> Obtain(ModelFingerprint fingerprint, const std::string& name, LayerRange layers,
                              const std::function<bool()>& cancelled);
  // The model's header alone, which is all that the API of a node without a stage needs. Errors: as Obtain.
  Result<LibraryModel> ObtainHeader(ModelFingerprint fingerprint, const std::string& name,
                                    const std::function<bool()>& cancelled = {});

  // What this node can be given stages of: files of the library, and models whose manifest is in the store; with what
  // of each is here. Looks at the disk.
  std::vector<ModelHolding> Holdings() const;
  // Gets to know the models of the store, of which all, something or nothing but the manifest is here.
  void LookAtStore() const;
  // A member holds this model: gets its manifest, so that this node can be given stages of it. False: not now.
  bool Learn(ModelFingerprint fingerprint, const std::string& name);

  // What this node got for members that do not reach a source, and they had the time to take, goes. Now and then.
  void TidyUp() { helper_.Tidy(); }

  // What is being fetched now, or hashed for others to fetch, by model, for others to know.
  std::vector<Fetching> fetching() const;

  // Answers a member's questions until the stream ends, and closes it.
  void Serve(int fd);

 private:
  struct Known {
    ModelId id{};
    std::string local_path;
    LibraryModel model;
    std::shared_ptr<const Manifest> manifest;
  };
  NodeWeights(ModelLibrary& library, MetricsRegistry& metrics, NodeWeightsOptions options,
              std::shared_ptr<WeightStore> store);
  enum class Work : std::uint8_t { kHash, kGetManifest, kCheck };
  // Waits until nobody else does this work for the model, and keeps others waiting as long as the result lives.
  // Errors: kCancelled. `cancelled` may be empty.
  Result<std::shared_ptr<void>> TakeTurn(Work work, ModelFingerprint fingerprint,
                                         const std::function<bool()>& cancelled = {});
  Result<StoredModel> Stored(ModelFingerprint fingerprint) const;
  HeldWeights HeldOf(const Known& known) const;  // by the hashes that its manifest has
  // What is shown as on its way to this node, or hashed here; as long as the result lives.
  using Shown = std::multimap<std::string, FetchProgress>::iterator;
  std::shared_ptr<Shown> Show(const std::string& model, const FetchProgress& start);
  // `name`, or a like one when another model of the store is called so.
  std::string FreeName(const std::string& name, ModelFingerprint fingerprint) const;
  Result<StoredModel> FindToServe(ModelFingerprint fingerprint);
  Result<StoredModel> ManifestOf(ModelFingerprint fingerprint, const std::string& name,
                                 const std::function<bool()>& cancelled = {});
  bool IsRefused(const ModelId& id) const;  // the mutex is held
  std::vector<WeightPeer> Peers() const;
  Status CheckHeld(ModelFingerprint fingerprint, const Manifest& manifest, const std::vector<std::size_t>& ranges,
                   const std::function<bool()>& cancelled);
  Result<LibraryModel> ObtainStored(const StoredModel& model, ModelFingerprint fingerprint, LayerRange layers,
                                    const std::function<bool()>& cancelled);
  Status CheckWhole(const StoredModel& model, const std::function<bool()>& cancelled);
  // `for_others`: a member that asked for help does not get it by asking another one.
  Result<FetchReport> Fetch(const StoredModel& model, const std::vector<std::size_t>& ranges,
                            const std::function<bool()>& cancelled, bool for_others = false);
  Status FetchForOthers(const StoredModel& model, const std::vector<std::size_t>& ranges);
  void Progressed(Shown entry, const FetchProgress& now);

  ModelLibrary& library_;
  const NodeWeightsOptions options_;
  const std::shared_ptr<WeightStore> store_;
  SourceHelper helper_;
  WeightServer server_;
  Counter& fetched_;
  Counter& sourced_;
  Counter& served_;
  MetricsRegistry& metrics_;
  std::atomic<int> streams_{0};
  mutable std::mutex mutex_;
  mutable std::map<std::string, Known> known_;          // guarded by mutex_: of the store, by name
  std::multimap<std::string, FetchProgress> fetching_;  // guarded by mutex_: by model
  std::set<std::pair<Work, ModelFingerprint>> turns_;   // guarded by mutex_: taken
  std::condition_variable turn_over_;
  using Clock = std::chrono::steady_clock;
  // Guarded by mutex_: sourced models whose source does not give what is needed, until when that counts.
  std::map<ModelId, Clock::time_point> refused_;
  std::set<Digest> checked_;  // guarded by mutex_: blobs that need not be read anew
};

}  // namespace shoal
