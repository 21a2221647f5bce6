// Weights among members: answers their questions from the store, and fetches ranges from several of them at once.
//
// Knows no sockets and no cluster: a link asks a question and gets an answer. Everything that comes is verified against
// the manifest; a peer that sends wrong bytes is named and asked no more.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/peer_messages.h"
#include "weights/store.h"

namespace shoal {

inline constexpr std::size_t kFetchPeersMax = 16;       // asked at a time
inline constexpr std::size_t kFetchStreamsPerPeer = 2;  // one is on its way while the other is asked for
// For an answer, all of it. A manifest's may want a file hashed first.
inline constexpr std::chrono::milliseconds kWeightAnswerMax = std::chrono::seconds(90);
inline constexpr std::chrono::milliseconds kManifestAnswerMax = std::chrono::minutes(30);

// One stream to one peer. One thread at a time.
class WeightLink {
 public:
  virtual ~WeightLink() = default;
  // Blocks for the answer, at most `limit`. Errors: kUnavailable; then nothing more can be asked.
  virtual Result<std::vector<std::uint8_t>> Ask(std::vector<std::uint8_t> question,
                                                std::chrono::milliseconds limit) = 0;
  // Ends a blocked Ask; nothing more can be asked then. Any thread, while the link is there.
  virtual void Cancel() = 0;
};

struct WeightPeer {
  std::string name;  // for people
  std::function<Result<std::unique_ptr<WeightLink>>()> open;
  bool first = false;  // goes before us where both want the same of a sourced model: one way for any two
};

// Any thread.
class WeightServer {
 public:
  // `find`: the model of a fingerprint, whole or in part; hashes it first if need be. Called by several threads at
  // once, for the same model too. `fetch`: takes it on to fetch ranges from a model's source for the one who asks, or
  // says why not (weights/source_helper.h); may be empty.
  using FetchForOthers = std::function<Status(const StoredModel&, const std::vector<std::size_t>&)>;
  WeightServer(std::shared_ptr<const WeightStore> store, std::function<Result<StoredModel>(ModelFingerprint)> find,
               FetchForOthers fetch = {});
  // The answer to any bytes. Blocks on the disk.
  std::vector<std::uint8_t> Answer(std::span<const std::uint8_t> question);

 private:
  struct Known {
    StoredModel model;
    std::vector<std::uint8_t> manifest;  // encoded
    std::set<std::uint64_t> damaged;     // chunks by their bit of a HaveAnswer; guarded by mutex_
  };
  // `anew`: of a sourced model the state may be another one by now.
  Result<std::shared_ptr<Known>> ByFingerprint(ModelFingerprint fingerprint, bool anew);
  std::shared_ptr<Known> Renewed(std::shared_ptr<Known> known);
  // `range`: only its hashes matter. Else all that are known by now are there.
  Result<std::shared_ptr<Known>> ById(const ModelId& id, std::optional<std::size_t> range = {});
  Result<WeightAnswer> ReplyChunk(Known& known, const ChunkAsk& ask);
  WeightAnswer ReplyRanges(const Known& known) const;
  Result<WeightAnswer> ReplyFetch(const FetchAsk& ask);
  Result<WeightAnswer> Reply(const WeightAsk& ask);

  const std::shared_ptr<const WeightStore> store_;
  const std::function<Result<StoredModel>(ModelFingerprint)> find_;
  const FetchForOthers fetch_;
  std::mutex mutex_;
  std::map<ModelFingerprint, std::shared_ptr<Known>> known_;  // guarded by mutex_
};

// The answer of a peer, understood. Errors: as WeightLink::Ask; kCorrupt.
Result<WeightAnswer> AskPeer(WeightLink& link, const WeightAsk& ask, std::chrono::milliseconds limit);

// The first peer's that has it and whose manifest is right, and none of `refused`. `cancelled` may be empty. Errors:
// kNotFound (nobody has it), kCancelled.
Result<Manifest> FetchManifest(const std::vector<WeightPeer>& peers, ModelFingerprint fingerprint,
                               const std::set<ModelId>& refused = {}, const std::function<bool()>& cancelled = {});

struct FetchProgress {
  std::uint64_t bytes_done = 0, bytes_total = 0;  // of the ranges asked for; what was here already counts as done
};

struct FetchOptions {
  std::function<bool()> cancelled;                          // any thread; may be empty
  std::function<void(const FetchProgress&)> on_progress;    // several threads, one at a time; may be empty
  std::uint64_t seed = 0;                                   // another on each node
  std::int64_t patience_ms = 20'000;                        // without a peer that has what is missing
  std::chrono::milliseconds answer_max = kWeightAnswerMax;  // of a peer; then others are asked
  bool asks_others = true;  // of a sourced model: to fetch from the source what this node does not get there
};

struct FetchReport {
  std::vector<OwnedFd> pins;                           // of all ranges asked for
  std::uint64_t bytes_fetched = 0, bytes_refused = 0;  // of peers
  std::uint64_t source_bytes = 0;                      // of a sourced model's source
  std::vector<std::string> bad_peers;                  // sent wrong bytes
  std::map<std::string, std::uint64_t> bytes_by_peer;
};

// Brings `ranges` into the store, when there is room for all of them. Blocks; its threads end with the call.
// Errors: kUnavailable (nobody has a range: says which), kCancelled, and as WeightStore::Begin.
Result<FetchReport> FetchRanges(WeightStore& store, const Manifest& manifest, const std::vector<std::size_t>& ranges,
                                const std::vector<WeightPeer>& peers, const FetchOptions& options);

}  // namespace shoal
