// Rounds: look at what is here and what the others say; then fetch from peers and from the source at the same time.
#include "weights/sourced_fetch.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/units.h"
#include "weights/link_watch.h"
#include "weights/range_pull.h"

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kRoundPause{300};
constexpr std::chrono::milliseconds kStatesAnswerMax{10'000};
constexpr std::uint64_t kSourceRoundBytes = 256ULL << 20;  // then the others are asked anew
constexpr int kUnreachableMax = 2;  // attempts to reach the source, where others may get what it has
constexpr std::size_t kOthersSayMax = 400;
constexpr int kFruitlessPatience = 9;  // so many times the patience with nothing coming, whoever is at it
constexpr std::chrono::milliseconds kLearnsWithin{6'000};  // members look every 5 s what models there are
constexpr int kSilencePart = 3;  // a peer that says nothing for a time is not asked again for so many times as long

using Clock = std::chrono::steady_clock;

class SourcedFetch {
 public:
  SourcedFetch(WeightStore& store, const StoredModel& model, const std::vector<WeightPeer>& peers,
               const HttpOptions& http, const FetchOptions& options)
      : store_(store), model_(model), manifest_(model.manifest), peers_(peers), http_(http), options_(options) {
    links_.resize(peers.size());
    asked_again_.resize(peers.size());
    http_.cancelled = options.cancelled;
    if (!peers.empty()) http_.unreachable_max = kUnreachableMax;
  }
  ~SourcedFetch() {
    for (const auto& [range, state] : wanted_) store_.claims().Drop(model_.id, range, state);
  }

  Result<FetchReport> Run(const std::vector<std::size_t>& ranges);

 private:
  struct Round {
    std::vector<std::size_t> of_peers, of_source, of_nobody;
    std::map<std::size_t, std::shared_ptr<RangeWriter>> writers;  // of of_source
    bool waits = false;                                           // another one fetches a range
  };

  bool Cancelled() const { return options_.cancelled && options_.cancelled(); }
  void Want(std::size_t range);
  void WantNoMore(std::size_t range);
  void TakeWhatIsHere();
  void AskStates(bool anew);
  std::vector<RangeState> StatesOf(std::size_t peer, bool anew);
  bool AskToFetch(const std::vector<std::size_t>& ranges);
  bool Hopeless();
  Result<Round> Plan();
  Status PlanSource(std::size_t range, Round& round);
  bool LearnHashes(std::size_t range);
  void BeginSource(Round& round);
  Status FromSource(const Round& round);
  Status FromPeers(const Round& round);
  Status AfterSource(const Status& fetched, const Round& round);
  void Report(std::uint64_t more);
  std::string MissingText() const;
  Error Nobody() const;

  WeightStore& store_;
  const StoredModel& model_;
  std::shared_ptr<const Manifest> manifest_;
  const std::vector<WeightPeer>& peers_;
  HttpOptions http_;
  const FetchOptions& options_;

  std::vector<std::size_t> missing_;
  std::map<std::size_t, RangeState> wanted_;  // claimed so
  std::set<std::size_t> only_source_;         // peers that said they had it did not give it
  std::map<std::size_t, std::string> told_by_;
  std::vector<std::unique_ptr<WeightLink>> links_;  // [peers]; null: none is open
  std::vector<std::vector<RangeState>> states_;     // [peers][ranges]; empty: it does not say
  std::vector<Clock::time_point> asked_again_;      // [peers]: not before
  LinkWatch watch_{[this] { return Cancelled(); }};
  Status source_error_;             // why the source gives us nothing
  std::string alike_, others_say_;  // whom the source gives nothing for the same reason; why others do not fetch for us
  Clock::time_point came_{};        // when something came last
  Clock::time_point hoped_{};       // the same, or somebody was at it
  FetchReport report_;

  std::mutex mutex_;
  FetchProgress progress_;         // guarded by mutex_
  std::uint64_t round_bytes_ = 0;  // guarded by mutex_; that came in this round
  std::vector<OwnedFd> coming_;    // guarded by mutex_; pins of what came in this round
};

void SourcedFetch::Want(std::size_t range) {
  const RangeState state = store_.HasSome(*manifest_, range, model_.id) ? RangeState::kBegun : RangeState::kWanted;
  wanted_[range] = state;
  store_.claims().Add(model_.id, range, state);
}

void SourcedFetch::WantNoMore(std::size_t range) {
  const auto found = wanted_.find(range);
  if (found == wanted_.end()) return;
  store_.claims().Drop(model_.id, range, found->second);
  wanted_.erase(found);
}

// Pins what is whole by now, and counts it.
void SourcedFetch::TakeWhatIsHere() {
  manifest_ = store_.WithHashes(model_.id, manifest_);
  std::erase_if(missing_, [&](std::size_t range) {
    Result<OwnedFd> pin = store_.Pin(*manifest_, range);
    if (!pin.ok()) return false;
    report_.pins.push_back(*std::move(pin));
    WantNoMore(range);
    progress_.bytes_done += manifest_->ranges[range].bytes;
    return true;
  });
  round_bytes_ = 0;
  coming_.clear();
}

// What a peer says of each range; nothing where it does not answer, or did not lately.
std::vector<RangeState> SourcedFetch::StatesOf(std::size_t peer, bool anew) {
  const auto start = Clock::now();
  std::unique_ptr<WeightLink>& link = links_[peer];
  if (link == nullptr && (!anew || start < asked_again_[peer])) return {};
  if (link == nullptr) {
    Result<std::unique_ptr<WeightLink>> opened = peers_[peer].open();
    if (opened.ok()) link = *std::move(opened);
  }
  Result<WeightAnswer> answer = Error{ErrorCode::kUnavailable, "not reached"};
  if (link != nullptr) answer = watch_.Ask(*link, RangesAsk{model_.id}, kStatesAnswerMax);
  if (!answer.ok()) {
    link.reset();
    asked_again_[peer] = Clock::now() + kSilencePart * (Clock::now() - start);
    return {};
  }
  auto* ranges = std::get_if<RangesAnswer>(&*answer);
  const bool fits = ranges != nullptr && ranges->states.size() == manifest_->ranges.size();
  return fits ? std::move(ranges->states) : std::vector<RangeState>();
}

// All at the same time. `anew`: also who did not answer before.
void SourcedFetch::AskStates(bool anew) {
  states_.assign(peers_.size(), {});
  std::atomic<std::size_t> next{0};
  const auto ask = [&] {
    for (std::size_t i = next++; i < peers_.size() && !Cancelled(); i = next++) states_[i] = StatesOf(i, anew);
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < std::min(peers_.size(), kFetchPeersMax); ++i) threads.emplace_back(ask);
  ask();
  for (std::thread& thread : threads) thread.join();
}

// Whether a peer says that it fetches for us what we do not get: one, so that one fetches it.
bool SourcedFetch::AskToFetch(const std::vector<std::size_t>& ranges) {
  alike_.clear();
  others_say_.clear();
  if (!options_.asks_others) return false;
  FetchAsk ask{model_.id, {ranges.begin(), ranges.end()}};
  if (ask.ranges.size() > kFetchAskRangesMax) ask.ranges.resize(kFetchAskRangesMax);
  for (std::size_t k = 0; k < peers_.size(); ++k) {
    const std::size_t i = (options_.seed + k) % peers_.size();  // not the same for all
    if (links_[i] == nullptr || states_[i].empty()) continue;
    const Result<WeightAnswer> answer = watch_.Ask(*links_[i], ask, kStatesAnswerMax);
    if (!answer.ok()) links_[i].reset();
    if (answer.ok() && std::holds_alternative<FetchAnswer>(*answer)) return true;
    const auto* refusal = answer.ok() ? std::get_if<Refusal>(&*answer) : nullptr;
    const std::string why = refusal != nullptr ? refusal->text : "no answer";
    if (why == source_error_.error().message.substr(0, kRefusalBytesMax)) {
      alike_ += (alike_.empty() ? "'" : ", '") + peers_[i].name + "'";
    } else {
      others_say_ += (others_say_.empty() ? "'" : "; '") + peers_[i].name + "': " + why;
    }
  }
  return false;
}

// Nobody gives what is missing. It is tried for a while longer where the source may be reached again, or a peer has yet
// to learn of the model.
bool SourcedFetch::Hopeless() {
  std::chrono::milliseconds patience{0};
  const std::chrono::milliseconds most{options_.patience_ms};
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (links_[i] != nullptr && states_[i].empty()) patience = std::min(most, kLearnsWithin);
  }
  if (source_error_.error().code == ErrorCode::kUnavailable) patience = most;
  const auto now = Clock::now();
  if (!options_.asks_others || now - hoped_ >= patience || now - came_ >= kFruitlessPatience * most) return true;
  source_error_ = {};
  for (const std::size_t range : missing_) Want(range);
  return false;
}

// The hashes of a range that a peer says it has. False: nobody tells them.
bool SourcedFetch::LearnHashes(std::size_t range) {
  if (manifest_->ranges[range].known()) return true;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (states_[i].empty() || states_[i][range] != RangeState::kHere || links_[i] == nullptr) continue;
    const Result<WeightAnswer> answer =
        watch_.Ask(*links_[i], HashesAsk{model_.id, static_cast<std::uint32_t>(range)}, kStatesAnswerMax);
    if (!answer.ok()) links_[i].reset();
    const auto* hashes = answer.ok() ? std::get_if<HashesAnswer>(&*answer) : nullptr;
    if (hashes == nullptr || hashes->chunks.size() != manifest_->ChunkCount(range)) continue;
    if (!store_.KeepHashes(model_.id, range, hashes->chunks).ok()) continue;
    told_by_[range] = peers_[i].name;
    manifest_ = store_.WithHashes(model_.id, manifest_);
    return manifest_->ranges[range].known();
  }
  return false;
}

// Where each missing range comes from in this round.
Result<SourcedFetch::Round> SourcedFetch::Plan() {
  Round round;
  std::uint64_t source_bytes = 0;
  for (const std::size_t range : missing_) {
    std::vector<PeerClaim> claims;
    for (std::size_t i = 0; i < peers_.size() && !only_source_.contains(range); ++i) {
      if (!states_[i].empty()) claims.push_back({states_[i][range], peers_[i].first});
    }
    const auto wanted = wanted_.find(range);
    const FetchFrom from = WhereFrom(wanted == wanted_.end() ? RangeState::kNone : wanted->second, claims);
    if (from == FetchFrom::kPeers && LearnHashes(range)) {
      round.of_peers.push_back(range);
    } else if (from == FetchFrom::kWait) {
      round.waits = true;
    } else if (source_error_.ok() && source_bytes < kSourceRoundBytes) {
      source_bytes += manifest_->ranges[range].bytes;
      SHOAL_RETURN_IF_ERROR(PlanSource(range, round));
    } else if (!source_error_.ok()) {
      round.of_nobody.push_back(range);
    }
  }
  return round;
}

Status SourcedFetch::PlanSource(std::size_t range, Round& round) {
  Result<std::shared_ptr<RangeWriter>> writer = store_.Begin(*manifest_, range, model_.id);
  if (writer.ok()) {
    round.writers[range] = *std::move(writer);
    round.of_source.push_back(range);
    return {};
  }
  if (writer.error().code != ErrorCode::kUnavailable) return writer.error();
  round.waits = true;  // another fetch of this node has it
  return {};
}

// Says what comes from the source in this round, then looks once more: who looked at us before we wanted a range may be
// about to fetch it too. Of two that say so, who looks last sees the other and waits.
void SourcedFetch::BeginSource(Round& round) {
  for (const std::size_t range : round.of_source) store_.claims().Add(model_.id, range, RangeState::kFetching);
  if (round.of_source.empty()) return;
  const std::vector<std::vector<RangeState>> before = std::move(states_);
  AskStates(false);
  std::erase_if(round.of_source, [&](std::size_t range) {
    bool others = false;
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      const bool was = !before[i].empty() && before[i][range] >= RangeState::kFetching;
      others = others || (!was && !states_[i].empty() && states_[i][range] >= RangeState::kFetching);
    }
    if (!others) return false;
    store_.claims().Drop(model_.id, range, RangeState::kFetching);
    round.writers.erase(range);
    round.waits = true;
    return true;
  });
}

Status SourcedFetch::FromSource(const Round& round) {
  SHOAL_ASSIGN_OR_RETURN(const RemoteBytes from, RemoteBytesOf(*manifest_));
  RangeSink sink;
  sink.begin = [&](std::size_t range) -> Result<std::shared_ptr<RangeWriter>> { return round.writers.at(range); };
  sink.finished = [&](std::size_t range, RangeWriter::Finished finished) -> Status {
    const std::lock_guard lock(mutex_);
    coming_.push_back(std::move(finished.pin));
    report_.source_bytes += manifest_->ranges[range].bytes;
    return store_.KeepHashes(model_.id, range, finished.chunks);
  };
  sink.on_bytes = [&](std::uint64_t more) { Report(more); };
  return PullRanges(*manifest_, round.of_source, from, sink, http_, kSourceConnections);
}

Status SourcedFetch::FromPeers(const Round& round) {
  FetchOptions options = options_;
  std::uint64_t had = 0;
  options.on_progress = [&](const FetchProgress& now) { Report(now.bytes_done - std::exchange(had, now.bytes_done)); };
  std::vector<WeightPeer> good;
  for (const WeightPeer& peer : peers_) {
    const auto& bad = report_.bad_peers;
    if (std::find(bad.begin(), bad.end(), peer.name) == bad.end()) good.push_back(peer);
  }
  Result<FetchReport> fetched = FetchRanges(store_, *manifest_, round.of_peers, good, options);
  if (!fetched.ok() && fetched.error().code == ErrorCode::kUnavailable) {
    Log(LogLevel::kInfo, "weights", model_.name + ": " + fetched.error().message + "; asking its source");
    only_source_.insert(round.of_peers.begin(), round.of_peers.end());
    return {};
  }
  if (!fetched.ok()) return fetched.error();
  const std::lock_guard lock(mutex_);
  for (OwnedFd& pin : fetched->pins) coming_.push_back(std::move(pin));
  report_.bytes_fetched += fetched->bytes_fetched;
  report_.bytes_refused += fetched->bytes_refused;
  report_.bad_peers.insert(report_.bad_peers.end(), fetched->bad_peers.begin(), fetched->bad_peers.end());
  for (const auto& [name, bytes] : fetched->bytes_by_peer) report_.bytes_by_peer[name] += bytes;
  return {};
}

// A source that cannot be had leaves the peers; what no peer can mend ends the fetch.
Status SourcedFetch::AfterSource(const Status& fetched, const Round& round) {
  if (fetched.ok()) return {};
  const Error& error = fetched.error();
  if (error.code == ErrorCode::kCorrupt) {
    std::string said;
    for (const std::size_t range : round.of_source) {
      const auto told = told_by_.find(range);
      if (told != told_by_.end())
        said += (said.empty() ? "" : ", ") + manifest_->ranges[range].Name() + " by '" + told->second + "'";
    }
    return Error{ErrorCode::kCorrupt,
                 "what " + WithoutQuery(manifest_->sources[0].url) + " sends of " + model_.name +
                     " is not what came of it before" + (said.empty() ? "" : " (told of " + said + ")") +
                     "; one of both is wrong. `shoal verify " + model_.name +
                     "` on each node finds damage; `shoal rm " + model_.name + "` on all begins anew"};
  }
  const bool final = error.code == ErrorCode::kStale || error.code == ErrorCode::kCancelled ||
                     error.code == ErrorCode::kIo || error.code == ErrorCode::kInternal;
  if (final) return fetched;
  source_error_ = fetched;
  for (const std::size_t range : missing_) WantNoMore(range);  // nobody is to wait for us
  return {};
}

void SourcedFetch::Report(std::uint64_t more) {
  const std::lock_guard lock(mutex_);
  round_bytes_ += more;
  if (more > 0) hoped_ = came_ = Clock::now();
  FetchProgress now = progress_;
  now.bytes_done = std::min(now.bytes_total, now.bytes_done + round_bytes_);
  if (options_.on_progress) options_.on_progress(now);
}

std::string SourcedFetch::MissingText() const {
  std::vector<bool> is_missing(manifest_->ranges.size());
  std::string others;
  for (const std::size_t range : missing_) {
    is_missing[range] = true;
    if (manifest_->ranges[range].kind != RangeKind::kLayer) others += ", " + manifest_->ranges[range].Name();
  }
  const std::string layers = FormatLayers(HeldLayers(*manifest_, is_missing));
  return layers.empty() ? others.substr(2) : "layers " + layers + others;
}

Error SourcedFetch::Nobody() const {
  if (!options_.asks_others) return source_error_.error();  // for whoever asked this node to fetch
  std::string text = "no node that can be reached has " + MissingText() + " of " + model_.name +
                     " (`shoal pull` where its source gives it fetches all of it for the others), and its source does "
                     "not give it here: " +
                     source_error_.error().message;
  if (!alike_.empty()) text += ". The same goes for " + alike_;
  if (!others_say_.empty()) text += ". Of the others says " + others_say_.substr(0, kOthersSayMax);
  return {source_error_.error().code, std::move(text)};
}

Result<FetchReport> SourcedFetch::Run(const std::vector<std::size_t>& ranges) {
  missing_ = ranges;
  for (const std::size_t range : ranges) progress_.bytes_total += manifest_->ranges[range].bytes;
  TakeWhatIsHere();
  SHOAL_RETURN_IF_ERROR(store_.MakeRoomFor(*manifest_, missing_, model_.id));
  for (const std::size_t range : missing_) Want(range);
  hoped_ = came_ = Clock::now();
  while (!missing_.empty()) {
    if (Cancelled()) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
    AskStates(true);
    SHOAL_ASSIGN_OR_RETURN(Round round, Plan());
    BeginSource(round);
    Report(0);
    Status of_source;
    std::thread source;
    if (!round.of_source.empty()) source = std::thread([&] { of_source = FromSource(round); });
    const Status of_peers = round.of_peers.empty() ? Status() : FromPeers(round);
    if (source.joinable()) source.join();
    for (const std::size_t range : round.of_source) { store_.claims().Drop(model_.id, range, RangeState::kFetching); }
    round.writers.clear();
    TakeWhatIsHere();
    SHOAL_RETURN_IF_ERROR(AfterSource(of_source, round));
    SHOAL_RETURN_IF_ERROR(of_peers);
    if (!round.of_source.empty() || !round.of_peers.empty()) continue;
    if (!round.of_nobody.empty() && AskToFetch(round.of_nobody)) round.waits = true;
    if (Cancelled()) continue;
    if (round.waits) hoped_ = Clock::now();
    if (!round.waits && !source_error_.ok() && Hopeless()) return Nobody();
    std::this_thread::sleep_for(kRoundPause);
  }
  return std::move(report_);
}

}  // namespace

Result<FetchReport> FetchSourced(WeightStore& store, const StoredModel& model, const std::vector<std::size_t>& ranges,
                                 const std::vector<WeightPeer>& peers, const HttpOptions& http,
                                 const FetchOptions& options) {
  return SourcedFetch(store, model, peers, http, options).Run(ranges);
}

}  // namespace shoal
