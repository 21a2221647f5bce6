// Threads that each talk to one peer; the Swarm says what to ask for.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "weights/link_watch.h"
#include "weights/peers.h"
#include "weights/swarm.h"

namespace shoal {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kHaveEvery{300};  // how often a peer that is fetching too is asked what it has
constexpr std::chrono::milliseconds kIdlePause{50};
constexpr std::chrono::milliseconds kReopenPause{1000};
constexpr int kFailuresMax = 5;  // of a peer in a row

Result<Manifest> ManifestFrom(WeightLink& link, LinkWatch& watch, ModelFingerprint fingerprint,
                              const std::set<ModelId>& refused) {
  std::vector<std::uint8_t> bytes;
  ModelId id{};
  for (;;) {
    SHOAL_ASSIGN_OR_RETURN(WeightAnswer answer,
                           watch.Ask(link, ManifestAsk{fingerprint, bytes.size()}, kManifestAnswerMax));
    if (const auto* refusal = std::get_if<Refusal>(&answer)) return Error{ErrorCode::kNotFound, refusal->text};
    auto* piece = std::get_if<ManifestPiece>(&answer);
    if (piece == nullptr || (piece->bytes.empty() && bytes.size() < piece->total_bytes)) {
      return Error{ErrorCode::kCorrupt, "it answers something else than a manifest"};
    }
    id = piece->id;
    if (refused.contains(id)) return Error{ErrorCode::kStale, "it knows an older state of the file"};
    bytes.insert(bytes.end(), piece->bytes.begin(), piece->bytes.end());
    if (bytes.size() >= piece->total_bytes) break;
  }
  if (Sha256(bytes) != id) return Error{ErrorCode::kCorrupt, "its manifest is not the one it names"};
  SHOAL_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(bytes));
  if (FingerprintOf(manifest.header, manifest.file_bytes) != fingerprint) {
    return Error{ErrorCode::kCorrupt, "its manifest is of another model"};
  }
  return manifest;
}

// Where a chunk of the swarm is.
struct ChunkPlace {
  std::size_t writer;   // of writers_
  std::uint64_t chunk;  // of its range
  std::size_t bit;      // of a HaveAnswer
};

class Fetch {
 public:
  Fetch(WeightStore& store, const Manifest& manifest, const std::vector<WeightPeer>& peers, const FetchOptions& options)
      : store_(store), manifest_(manifest), id_(Sha256(EncodeManifest(manifest))), peers_(peers), options_(options) {}

  Result<FetchReport> Run(const std::vector<std::size_t>& ranges);

 private:
  struct Writing {
    std::size_t range;
    std::shared_ptr<RangeWriter> writer;
    std::uint64_t left;  // chunks; guarded by mutex_
  };

  bool Cancelled() const { return stop_ || (options_.cancelled && options_.cancelled()); }
  Status Open(std::size_t range);
  Status Missing() const;
  void Pause(std::chrono::milliseconds time) const;
  void Work(std::size_t peer);
  // Until the stream breaks or all is done; whether anything came.
  bool Talk(std::size_t peer);
  Status AskHave(WeightLink& link, std::size_t peer);
  // False when the peer is to be left.
  bool Take(WeightLink& link, std::size_t peer, std::size_t chunk);
  Status Finish(Writing& writing);
  void Fail(const Status& why);  // the mutex is held

  WeightStore& store_;
  const Manifest& manifest_;
  const ModelId id_;
  const std::vector<WeightPeer>& peers_;
  const FetchOptions& options_;
  std::vector<Writing> writings_;
  std::vector<ChunkPlace> places_;  // [chunks of the swarm]
  std::size_t bits_ = 0;            // of a HaveAnswer

  std::atomic<bool> stop_{false};  // all has come, or will not: no answer is wanted any more
  LinkWatch watch_{[this] { return Cancelled(); }};
  mutable std::mutex mutex_;
  std::unique_ptr<Swarm> swarm_;  // guarded by mutex_
  FetchReport report_;            // guarded by mutex_
  FetchProgress progress_;        // guarded by mutex_
  Status failed_;                 // guarded by mutex_; of our own disk
  std::vector<bool> left_out_;    // guarded by mutex_: [peers] sent wrong bytes
  Clock::time_point hopeful_{};   // guarded by mutex_: when a peer last had something for us
};

// Pins the range when it is here, else opens its writer; waits for another fetch of the same range in this process.
Status Fetch::Open(std::size_t range) {
  const Digest blob = BlobId(manifest_.ranges[range], manifest_.chunk_bytes);
  const bool twice = std::any_of(writings_.begin(), writings_.end(), [&](const Writing& one) {
    return manifest_.ranges[range].known() && BlobId(manifest_.ranges[one.range], manifest_.chunk_bytes) == blob;
  });
  if (twice) return {};  // layers with the same bytes: here once the first of them is
  progress_.bytes_total += manifest_.ranges[range].bytes;
  for (;;) {
    if (Cancelled()) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
    if (Result<OwnedFd> pin = store_.Pin(blob); pin.ok()) {
      report_.pins.push_back(*std::move(pin));
      progress_.bytes_done += manifest_.ranges[range].bytes;
      return {};
    }
    Result<std::shared_ptr<RangeWriter>> writer = store_.Begin(manifest_, range);
    if (writer.ok()) {
      progress_.bytes_done += (*writer)->bytes_had();
      writings_.push_back({range, *std::move(writer), 0});
      return {};
    }
    if (writer.error().code != ErrorCode::kUnavailable) return writer.error();
    Pause(kReopenPause);
  }
}

Status Fetch::Finish(Writing& writing) {
  SHOAL_ASSIGN_OR_RETURN(RangeWriter::Finished finished, writing.writer->Finish());
  const std::lock_guard lock(mutex_);
  report_.pins.push_back(std::move(finished.pin));
  writing.writer.reset();
  return {};
}

void Fetch::Fail(const Status& why) {
  if (failed_.ok()) failed_ = why;
  stop_ = true;
}

Result<FetchReport> Fetch::Run(const std::vector<std::size_t>& ranges) {
  SHOAL_RETURN_IF_ERROR(store_.MakeRoomFor(manifest_, ranges));
  for (const std::size_t range : ranges) SHOAL_RETURN_IF_ERROR(Open(range));
  bits_ = manifest_.ChunksBefore(manifest_.ranges.size());
  for (std::size_t w = 0; w < writings_.size(); ++w) {
    const std::vector<std::uint64_t> missing = writings_[w].writer->Missing();
    writings_[w].left = missing.size();
    const std::uint64_t first_bit = manifest_.ChunksBefore(writings_[w].range);
    for (const std::uint64_t chunk : missing) places_.push_back({w, chunk, first_bit + chunk});
    if (missing.empty()) SHOAL_RETURN_IF_ERROR(Finish(writings_[w]));
  }
  swarm_ = std::make_unique<Swarm>(places_.size(), options_.seed);
  hopeful_ = Clock::now();
  left_out_.resize(peers_.size());
  if (!swarm_->done()) {
    std::vector<std::size_t> peers(std::min(peers_.size(), kFetchPeersMax));
    for (std::size_t& peer : peers) peer = swarm_->AddPeer();  // all of them before any thread looks
    std::vector<std::thread> threads;
    for (const std::size_t peer : peers) {
      for (std::size_t s = 0; s < kFetchStreamsPerPeer; ++s) threads.emplace_back([this, peer] { Work(peer); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  SHOAL_RETURN_IF_ERROR(failed_);
  if (options_.cancelled && options_.cancelled()) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
  if (!swarm_->done()) return Missing().error();
  return std::move(report_);
}

// Says what nobody gave.
Status Fetch::Missing() const {
  std::string what;
  for (const Writing& writing : writings_) {
    if (writing.left > 0) what += (what.empty() ? "" : ", ") + manifest_.ranges[writing.range].Name();
  }
  std::string bad;
  for (const std::string& name : report_.bad_peers) bad += "; '" + name + "' sent wrong bytes and is left out";
  return Error{ErrorCode::kUnavailable, "no node that can be reached has all of " + what.substr(0, 300) + bad};
}

// Shorter when it is over meanwhile.
void Fetch::Pause(std::chrono::milliseconds time) const {
  for (const auto end = Clock::now() + time; Clock::now() < end && !Cancelled();) {
    std::this_thread::sleep_for(kIdlePause);
  }
}

void Fetch::Work(std::size_t peer) {
  for (int failures = 0; failures < kFailuresMax && !Cancelled(); ++failures) {
    {
      const std::lock_guard lock(mutex_);
      if (swarm_->done() || !failed_.ok() || left_out_[peer]) return;
    }
    if (Talk(peer)) failures = 0;
    if (failures + 1 < kFailuresMax) Pause(kReopenPause * failures);
  }
}

Status Fetch::AskHave(WeightLink& link, std::size_t peer) {
  SHOAL_ASSIGN_OR_RETURN(const WeightAnswer answer, watch_.Ask(link, HaveAsk{id_}, options_.answer_max));
  const auto* have = std::get_if<HaveAnswer>(&answer);
  std::vector<bool> chunks(places_.size());
  if (have != nullptr && have->bits.size() == (bits_ + 7) / 8) {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      chunks[i] = (have->bits[places_[i].bit / 8] >> (places_[i].bit % 8) & 1) != 0;
    }
  }
  const std::lock_guard lock(mutex_);
  swarm_->SetHave(peer, std::move(chunks));
  return {};
}

bool Fetch::Talk(std::size_t peer) {
  const Result<std::unique_ptr<WeightLink>> link = peers_[peer].open();
  if (!link.ok()) return false;
  bool came = false;
  Clock::time_point asked{};
  while (!Cancelled()) {
    if (Clock::now() - asked > kHaveEvery) {
      if (!AskHave(**link, peer).ok()) return came;
      asked = Clock::now();
    }
    std::optional<std::size_t> chunk;
    {
      const std::lock_guard lock(mutex_);
      if (swarm_->done() || !failed_.ok() || left_out_[peer]) return came;
      chunk = swarm_->Next(peer);
      if (chunk || swarm_->hopeful()) hopeful_ = Clock::now();
      if (Clock::now() - hopeful_ > std::chrono::milliseconds(options_.patience_ms)) {
        stop_ = true;  // nobody has had any of it for so long
        return came;
      }
    }
    if (!chunk) {
      std::this_thread::sleep_for(kIdlePause);
    } else if (!Take(**link, peer, *chunk)) {
      return came;
    } else {
      came = true;
    }
  }
  return came;
}

bool Fetch::Take(WeightLink& link, std::size_t peer, std::size_t chunk) {
  const ChunkPlace& place = places_[chunk];
  Writing& writing = writings_[place.writer];
  const ChunkAsk ask{id_, static_cast<std::uint32_t>(writing.range), static_cast<std::uint32_t>(place.chunk)};
  Result<WeightAnswer> answer = watch_.Ask(link, ask, options_.answer_max);
  const auto* got = answer.ok() ? std::get_if<ChunkAnswer>(&*answer) : nullptr;
  if (got == nullptr) {
    const std::lock_guard lock(mutex_);
    swarm_->Failed(peer, chunk);
    return answer.ok();  // a refusal: it has gone there meanwhile
  }
  {
    const std::lock_guard lock(mutex_);
    if (!swarm_->Came(peer, chunk)) return false;  // its other stream sent wrong bytes meanwhile
  }
  const Status put = writing.writer->Put(place.chunk, got->bytes);
  std::unique_lock lock(mutex_);
  const std::string& name = peers_[peer].name;
  if (!put.ok()) {
    if (put.error().code != ErrorCode::kCorrupt && put.error().code != ErrorCode::kInvalidArgument) {
      Fail(put);
      return false;
    }
    report_.bytes_refused += got->bytes.size();
    if (std::find(report_.bad_peers.begin(), report_.bad_peers.end(), name) == report_.bad_peers.end()) {
      report_.bad_peers.push_back(name);
    }
    swarm_->Wrong(chunk);
    swarm_->Drop(peer);
    left_out_[peer] = true;
    return false;
  }
  report_.bytes_fetched += got->bytes.size();
  report_.bytes_by_peer[name] += got->bytes.size();
  progress_.bytes_done += got->bytes.size();
  swarm_->Done(chunk);
  stop_ = stop_ || swarm_->done();
  if (options_.on_progress) options_.on_progress(progress_);
  if (--writing.left > 0) return true;
  lock.unlock();
  if (const Status finished = Finish(writing); !finished.ok()) {
    lock.lock();
    Fail(finished);
    return false;
  }
  return true;
}

}  // namespace

Result<WeightAnswer> AskPeer(WeightLink& link, const WeightAsk& ask, std::chrono::milliseconds limit) {
  SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> bytes, link.Ask(Encode(ask), limit));
  return ParseWeightAnswer(bytes);
}

Result<Manifest> FetchManifest(const std::vector<WeightPeer>& peers, ModelFingerprint fingerprint,
                               const std::set<ModelId>& refused, const std::function<bool()>& cancelled) {
  std::string why;
  LinkWatch watch(cancelled);
  for (const WeightPeer& peer : peers) {
    if (cancelled && cancelled()) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
    const Result<std::unique_ptr<WeightLink>> link = peer.open();
    Result<Manifest> manifest =
        link.ok() ? ManifestFrom(**link, watch, fingerprint, refused) : Result<Manifest>(link.error());
    if (manifest.ok()) return manifest;
    why += (why.empty() ? ": '" : "; '") + peer.name + "': " + manifest.error().message;
  }
  return Error{ErrorCode::kNotFound, "no node that can be reached has the model" + why.substr(0, 600)};
}

Result<FetchReport> FetchRanges(WeightStore& store, const Manifest& manifest, const std::vector<std::size_t>& ranges,
                                const std::vector<WeightPeer>& peers, const FetchOptions& options) {
  return Fetch(store, manifest, peers, options).Run(ranges);
}

}  // namespace shoal
