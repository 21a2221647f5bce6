// The store of this node and the streams of other members, brought together.
#include "node/node_weights.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/units.h"
#include "device/cpu_affinity.h"
#include "node/cluster_views.h"
#include "runtime/rng.h"
#include "weights/hub.h"
#include "weights/sourced_fetch.h"
#include "weights/whole_file.h"
#include "wire/frame.h"

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kFirstQuestionMax{10'000};
constexpr std::size_t kCheckThreadsMax = 8;
constexpr std::size_t kRefusedMax = 256;
constexpr std::chrono::minutes kRefusedFor{5};  // then its source is asked again
constexpr std::chrono::milliseconds kTurnPause{100};
constexpr int kCheckWholeAttempts = 2;

// Frames with nothing in them but a message about weights.
FrameBytes WeightsFrame(std::span<const std::uint8_t> message) {
  FrameBytes frame = StartFrame(message.size());
  frame.insert(frame.end(), message.begin(), message.end());
  SealFrame(FrameType::kWeights, 0, frame);
  return frame;
}

std::optional<std::span<const std::uint8_t>> WeightsMessage(const FrameBytes& frame) {
  const Result<FrameHeader> header = ParseFrame(frame);
  if (!header.ok() || header->type != FrameType::kWeights) return std::nullopt;
  return FramePayload(frame);
}

class StreamWeightLink final : public WeightLink {
 public:
  explicit StreamWeightLink(StreamLink link) : link_(std::move(link)) {}
  Result<std::vector<std::uint8_t>> Ask(std::vector<std::uint8_t> question, std::chrono::milliseconds limit) override {
    LimitFirstFrames(*link_.receiver, 1, limit);
    SHOAL_RETURN_IF_ERROR(link_.sender->Send(WeightsFrame(question)));
    const std::optional<FrameBytes> frame = link_.receiver->Receive();
    const auto message = frame ? WeightsMessage(*frame) : std::nullopt;
    if (!message) return Error{ErrorCode::kUnavailable, "the stream of weights has ended"};
    return std::vector<std::uint8_t>(message->begin(), message->end());
  }
  void Cancel() override { link_.receiver->Close(); }

 private:
  StreamLink link_;
};

// Keeps ranges from being evicted as long as someone has the model.
class PinnedSource final : public TensorSource {
 public:
  PinnedSource(std::shared_ptr<const TensorSource> source, std::vector<OwnedFd> pins)
      : source_(std::move(source)), pins_(std::move(pins)) {}
  Result<std::unique_ptr<TensorReader>> Open() const override { return source_->Open(); }

 private:
  const std::shared_ptr<const TensorSource> source_;
  const std::vector<OwnedFd> pins_;
};

// With this node's own token, where its hub has the model.
HttpOptions HttpFor(const Manifest& manifest) {
  HttpOptions http;
  http.token = TokenFor(HubFromEnvironment(), manifest.sources);
  http.on_wait = [](const std::string& why) { Log(LogLevel::kInfo, "weights", why); };
  return http;
}

Result<LibraryModel> AsLibraryModel(const StoredModel& model, std::shared_ptr<const TensorSource> source) {
  LibraryModel found;
  found.name = model.name;
  found.fingerprint = FingerprintOf(model.manifest->header, model.manifest->file_bytes);
  SHOAL_ASSIGN_OR_RETURN(found.file, ModelOf(*model.manifest, model.name, std::move(source)));
  return found;
}

}  // namespace

NodeWeights::NodeWeights(ModelLibrary& library, MetricsRegistry& metrics, NodeWeightsOptions options,
                         std::shared_ptr<WeightStore> store)
    : library_(library),
      options_(std::move(options)),
      store_(std::move(store)),
      helper_(store_, {options_.run, [this](const auto& model, const auto& r) { return FetchForOthers(model, r); }}),
      server_(
          store_, [this](ModelFingerprint fingerprint) { return FindToServe(fingerprint); },
          [this](const auto& model, const auto& ranges) { return helper_.Fetch(model, ranges); }),
      fetched_(metrics.GetCounter("shoal_weights_fetched_bytes_total", "Bytes of layers got from other members.")),
      sourced_(metrics.GetCounter("shoal_weights_source_bytes_total", "Bytes of layers got from models' sources.")),
      served_(metrics.GetCounter("shoal_weights_served_bytes_total", "Bytes of layers given to other members.")),
      metrics_(metrics) {}

Result<std::unique_ptr<NodeWeights>> NodeWeights::Open(ModelLibrary& library, MetricsRegistry& metrics,
                                                       NodeWeightsOptions options) {
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<WeightStore> store, WeightStore::Open(options.store));
  std::unique_ptr<NodeWeights> weights(
      new NodeWeights(library, metrics, std::move(options), std::shared_ptr<WeightStore>(std::move(store))));
  weights->LookAtStore();
  return weights;
}

// Called every few seconds: manifests are read once.
void NodeWeights::LookAtStore() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Known> known;
  for (const StoredName& one : store_->Names()) {
    const auto before = known_.find(one.name);
    if (before != known_.end() && before->second.id == one.id && before->second.local_path == one.local_path) {
      known[one.name] = before->second;
      continue;
    }
    const Result<StoredModel> stored = store_->Find(one.name);
    if (!stored.ok()) continue;
    Result<LibraryModel> model = AsLibraryModel(*stored, MakeStoreSource(store_, *stored));
    if (!model.ok()) continue;
    known[one.name] = {one.id, one.local_path, *std::move(model), stored->manifest};
  }
  known_ = std::move(known);
}

std::vector<ModelHolding> NodeWeights::Holdings() const {
  std::vector<std::pair<LibraryModel, HeldWeights>> models;
  for (LibraryModel& model : library_.models()) {
    HeldWeights all = WholeModel(*model.file);
    models.emplace_back(std::move(model), std::move(all));
  }
  LookAtStore();
  std::map<std::string, Known> known;
  {
    const std::lock_guard lock(mutex_);
    known = known_;
  }
  for (auto& [name, one] : known) {
    const std::shared_ptr<const Manifest> before = one.manifest;
    one.manifest = store_->WithHashes(one.id, before);
    models.emplace_back(one.model, HeldOf(one));
    if (one.manifest == before) continue;
    const std::lock_guard lock(mutex_);  // so that they are read once
    if (const auto kept = known_.find(name); kept != known_.end() && kept->second.manifest == before) {
      kept->second.manifest = one.manifest;
    }
  }
  return HoldingsOf(models);
}

HeldWeights NodeWeights::HeldOf(const Known& known) const {
  if (!known.local_path.empty()) return WholeModel(*known.model.file);
  const Manifest& manifest = *known.manifest;
  HeldWeights held{{}, true, true, true, 0, manifest.sourced()};
  std::vector<bool> is_here;
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    const WeightRange& range = manifest.ranges[i];
    const bool here = store_->Has(manifest, i);
    if (here) held.bytes += range.bytes;
    switch (range.kind) {
      case RangeKind::kShared: held.shared = here; break;
      case RangeKind::kEmbedding: held.embeddings = here; break;
      case RangeKind::kOutput: held.output = here; break;
      case RangeKind::kLayer: break;
    }
    is_here.push_back(here);
  }
  // Prediction heads beyond the model's layers are ranges too, of which others need to know nothing.
  const std::int32_t n_layer = known.model.file->info.n_layer;
  for (const LayerRange& range : HeldLayers(manifest, is_here)) {
    if (range.first < n_layer) held.layers.push_back({range.first, std::min(range.last, n_layer)});
  }
  return held;
}

Result<StoredModel> NodeWeights::Stored(ModelFingerprint fingerprint) const {
  std::string name;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [known_name, one] : known_) {
      if (one.model.fingerprint == fingerprint) name = known_name;
    }
  }
  if (name.empty()) return Error{ErrorCode::kNotFound, "this node does not have the model"};
  return store_->Find(name);
}

Result<std::shared_ptr<void>> NodeWeights::TakeTurn(Work work, ModelFingerprint fingerprint,
                                                    const std::function<bool()>& cancelled) {
  const std::pair turn{work, fingerprint};
  std::unique_lock lock(mutex_);
  while (!turn_over_.wait_for(lock, kTurnPause, [&] { return !turns_.contains(turn); })) {
    if (cancelled && cancelled()) return Error{ErrorCode::kCancelled, "the placement was given up"};
  }
  turns_.insert(turn);
  return std::shared_ptr<void>(nullptr, [this, turn](void*) {
    const std::lock_guard guard(mutex_);
    turns_.erase(turn);
    turn_over_.notify_all();
  });
}

std::shared_ptr<NodeWeights::Shown> NodeWeights::Show(const std::string& model, const FetchProgress& start) {
  const std::lock_guard lock(mutex_);
  return {new Shown(fetching_.emplace(model, start)), [this](const Shown* entry) {
            const std::lock_guard guard(mutex_);
            fetching_.erase(*entry);
            delete entry;
          }};
}

// A file of the library is hashed when the first member asks for it; the next ones wait for that, as a placement does.
Result<StoredModel> NodeWeights::FindToServe(ModelFingerprint fingerprint) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<void> turn, TakeTurn(Work::kHash, fingerprint, options_.stopping));
  if (Result<StoredModel> stored = Stored(fingerprint); stored.ok()) return stored;
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library_.FindFingerprint(fingerprint));
  const std::string name = FreeName(model.name, fingerprint);
  // Told like what is fetched: whoever waits for a placement sees that it goes on, and waits.
  std::shared_ptr<Shown> shown = Show(model.name, {0, model.file->gguf.file_bytes});
  const auto progress = [&](std::uint64_t done) {
    const std::lock_guard lock(mutex_);
    (*shown)->second.bytes_done = done;
    return !options_.stopping();
  };
  SHOAL_RETURN_IF_ERROR(store_->AddLocal(model.file->path, name, progress));
  shown.reset();
  LookAtStore();
  return store_->Find(name);
}

std::string NodeWeights::FreeName(const std::string& name, ModelFingerprint fingerprint) const {
  const std::lock_guard lock(mutex_);
  const auto known = known_.find(name);
  if (known == known_.end() || known->second.model.fingerprint == fingerprint) return name;
  char digits[20];
  std::snprintf(digits, sizeof digits, "-%08x", static_cast<unsigned>(fingerprint >> 32));
  return name.substr(0, kModelNameMax - 9) + digits;
}

std::vector<WeightPeer> NodeWeights::Peers() const {
  std::vector<WeightPeer> peers;
  for (const auto& [node, name] : options_.members()) {
    peers.push_back({name,
                     [this, node = node]() -> Result<std::unique_ptr<WeightLink>> {
                       SHOAL_ASSIGN_OR_RETURN(StreamLink link, options_.open(node));
                       return std::unique_ptr<WeightLink>(std::make_unique<StreamWeightLink>(std::move(link)));
                     },
                     node < options_.self});
  }
  return peers;
}

bool NodeWeights::IsRefused(const ModelId& id) const {
  const auto found = refused_.find(id);
  return found != refused_.end() && Clock::now() < found->second;
}

Result<StoredModel> NodeWeights::ManifestOf(ModelFingerprint fingerprint, const std::string& name,
                                            const std::function<bool()>& cancelled) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<void> turn, TakeTurn(Work::kGetManifest, fingerprint, cancelled));
  Result<StoredModel> known = Stored(fingerprint);
  std::set<ModelId> refused;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, until] : refused_) {
      if (IsRefused(id)) refused.insert(id);
    }
  }
  const bool current = known.ok() && !refused.contains(known->id);
  if (current && (known->name == name || store_->Find(name).ok())) return known;
  Manifest manifest;  // the same model may go by several names
  if (current) {
    manifest = *known->manifest;
  } else {
    SHOAL_ASSIGN_OR_RETURN(manifest, FetchManifest(Peers(), fingerprint, refused, cancelled));
  }
  const std::string free = FreeName(name, fingerprint);
  SHOAL_RETURN_IF_ERROR(store_->Add(manifest, free, "cluster"));
  LookAtStore();
  return store_->Find(free);
}

bool NodeWeights::Learn(ModelFingerprint fingerprint, const std::string& name) {
  const Result<StoredModel> model = ManifestOf(fingerprint, name);
  if (!model.ok()) Log(LogLevel::kInfo, "weights", "nothing is known of '" + name + "' yet: " + model.error().message);
  return model.ok();
}

Result<LibraryModel> NodeWeights::ObtainHeader(ModelFingerprint fingerprint, const std::string& name,
                                               const std::function<bool()>& cancelled) {
  if (Result<LibraryModel> local = library_.FindFingerprint(fingerprint); local.ok()) return local;
  SHOAL_ASSIGN_OR_RETURN(const StoredModel model, ManifestOf(fingerprint, name, cancelled));
  return AsLibraryModel(model, MakeStoreSource(store_, model));
}

Result<LibraryModel> NodeWeights::Obtain(ModelFingerprint fingerprint, const std::string& name, LayerRange layers,
                                         const std::function<bool()>& cancelled) {
  library_.Scan();
  if (Result<LibraryModel> local = library_.FindFingerprint(fingerprint); local.ok()) return local;
  for (;;) {
    const Result<StoredModel> stored = ManifestOf(fingerprint, name, cancelled);
    if (!stored.ok()) {
      return Error{stored.error().code,
                   "no whole file of '" + name + "' is here (the log tells of broken ones): " + stored.error().message};
    }
    Result<LibraryModel> model = ObtainStored(*stored, fingerprint, layers, cancelled);
    if (model.ok() || !stored->manifest->sourced() || model.error().code == ErrorCode::kCancelled) return model;
    // Others may know a newer state of the file, or have all of it.
    const bool stale = model.error().code == ErrorCode::kStale;
    {
      const std::lock_guard lock(mutex_);
      if (refused_.size() >= kRefusedMax) refused_.clear();
      refused_[stored->id] = Clock::now() + kRefusedFor;
    }
    if (ManifestOf(fingerprint, name, cancelled).ok()) continue;
    if (stale) return Error{ErrorCode::kStale, model.error().message + ": place it again, by the name that it came by"};
    const std::lock_guard lock(mutex_);
    refused_.erase(stored->id);
    return model;
  }
}

Result<LibraryModel> NodeWeights::ObtainStored(const StoredModel& model, ModelFingerprint fingerprint,
                                               LayerRange layers, const std::function<bool()>& cancelled) {
  if (!model.local_path.empty()) return AsLibraryModel(model, MakeStoreSource(store_, model));
  SHOAL_ASSIGN_OR_RETURN(const std::vector<std::size_t> ranges, RangesOf(*model.manifest, layers));
  SHOAL_RETURN_IF_ERROR(CheckHeld(fingerprint, *model.manifest, ranges, cancelled));
  helper_.Keep(model.id, ranges);
  SHOAL_ASSIGN_OR_RETURN(FetchReport report, Fetch(model, ranges, cancelled));
  StoredModel here = model;
  here.manifest = store_->WithHashes(model.id, model.manifest);
  {
    const std::lock_guard lock(mutex_);  // what came was hashed as it came
    for (const std::size_t range : ranges) {
      if (here.manifest->ranges[range].known())
        checked_.insert(BlobId(here.manifest->ranges[range], here.manifest->chunk_bytes));
    }
  }
  SHOAL_RETURN_IF_ERROR(CheckWhole(here, cancelled));
  return AsLibraryModel(here, std::make_shared<PinnedSource>(MakeStoreSource(store_, here), std::move(report.pins)));
}

// Where all of a sourced model is on one node, its files can be held against what the hub says of them. That wants a
// little of each part that is no weights: a model that is here starts also where its source cannot be had.
Status NodeWeights::CheckWhole(const StoredModel& model, const std::function<bool()>& cancelled) {
  const Manifest& manifest = *model.manifest;
  if (!manifest.sourced() || store_->IsCheckedWhole(model.id)) return {};
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    if (!store_->Has(manifest, i)) return {};
  }
  HttpOptions http = HttpFor(manifest);
  http.cancelled = cancelled;
  http.attempts_max = kCheckWholeAttempts;
  Status right = CheckWholeFiles(store_, model, http);
  if (!right.ok()) {
    const ErrorCode code = right.error().code;
    if (code == ErrorCode::kCorrupt || code == ErrorCode::kCancelled) return right;
    Log(LogLevel::kInfo, "weights",
        model.name + " is not held against its source's hash yet, which its next start does: " + right.error().message);
    return {};
  }
  return store_->KeepCheckedWhole(model.id);
}

// What is here since an earlier start is read once, by all cores: a range with a wrong byte is removed, so that it is
// fetched anew. What comes while this process runs is hashed as it comes.
Status NodeWeights::CheckHeld(ModelFingerprint fingerprint, const Manifest& manifest,
                              const std::vector<std::size_t>& ranges, const std::function<bool()>& cancelled) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<void> turn, TakeTurn(Work::kCheck, fingerprint, cancelled));
  std::vector<std::size_t> unchecked;
  for (const std::size_t range : ranges) {
    if (!manifest.ranges[range].known()) continue;
    const Digest blob = BlobId(manifest.ranges[range], manifest.chunk_bytes);
    const std::lock_guard lock(mutex_);
    if (checked_.contains(blob)) continue;
    if (store_->Has(blob)) {
      unchecked.push_back(range);
    } else {
      checked_.insert(blob);
    }
  }
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  OnAllCpus("shoal-check", std::min(kCheckThreadsMax, unchecked.size()), [&](bool) {
    for (std::size_t i = next++; i < unchecked.size() && !stop; i = next++) {
      if (cancelled && cancelled()) {
        stop = true;
        return;
      }
      const Status right = store_->Verify(manifest, unchecked[i]);
      if (!right.ok()) Log(LogLevel::kWarning, "weights", right.error().message);
      const std::lock_guard lock(mutex_);
      checked_.insert(BlobId(manifest.ranges[unchecked[i]], manifest.chunk_bytes));
    }
  });
  if (stop) return Error{ErrorCode::kCancelled, "the placement was given up"};
  return {};
}

Result<FetchReport> NodeWeights::Fetch(const StoredModel& model, const std::vector<std::size_t>& ranges,
                                       const std::function<bool()>& cancelled, bool for_others) {
  std::shared_ptr<Shown> shown = Show(model.name, {});
  FetchOptions options;
  options.cancelled = cancelled;
  options.seed = RandomSeed();
  options.asks_others = !for_others;
  options.on_progress = [&](const FetchProgress& now) { Progressed(*shown, now); };
  const auto fetch = [&]() -> Result<FetchReport> {
    if (!model.manifest->sourced()) return FetchRanges(*store_, *model.manifest, ranges, Peers(), options);
    return FetchSourced(*store_, model, ranges, Peers(), HttpFor(*model.manifest), options);
  };
  Result<FetchReport> report = fetch();
  shown.reset();
  if (!report.ok()) return report;
  fetched_.Add(report->bytes_fetched);
  sourced_.Add(report->source_bytes);
  for (const std::string& bad : report->bad_peers) {
    Log(LogLevel::kWarning, "weights",
        "node '" + bad + "' sent wrong bytes of " + model.name + " and is asked no more");
  }
  return report;
}

Status NodeWeights::FetchForOthers(const StoredModel& model, const std::vector<std::size_t>& ranges) {
  const Result<FetchReport> report = Fetch(model, ranges, options_.stopping, true);
  return report.ok() ? Status() : Status(report.error());
}

// A line for the log at every tenth, the rest for whoever looks.
void NodeWeights::Progressed(Shown entry, const FetchProgress& now) {
  const auto tenth = [](const FetchProgress& at) {
    return 10 * at.bytes_done / std::max<std::uint64_t>(1, at.bytes_total);
  };
  FetchProgress before, all;
  const std::string& model = entry->first;
  {
    const std::lock_guard lock(mutex_);
    before = std::exchange(entry->second, now);
    for (auto [one, end] = fetching_.equal_range(model); one != end; ++one) {
      all.bytes_done += one->second.bytes_done;
      all.bytes_total += one->second.bytes_total;
    }
  }
  const auto set = [&](const char* name, const char* help, std::uint64_t value) {
    metrics_.GetGauge(name, help, "model=\"" + model + "\"").Set(static_cast<double>(value));
  };
  set("shoal_weights_fetch_bytes", "Bytes that have come of the layers that are, or were last, fetched.",
      all.bytes_done);
  set("shoal_weights_fetch_total_bytes", "Bytes of the layers that are, or were last, fetched.", all.bytes_total);
  if (before.bytes_total != 0 && tenth(before) == tenth(now)) return;
  Log(LogLevel::kInfo, "weights",
      model + ": " + std::to_string(10 * tenth(now)) + " % of " + FormatBytes(now.bytes_total));
}

std::vector<Fetching> NodeWeights::fetching() const {
  const std::lock_guard lock(mutex_);
  std::vector<Fetching> all;
  for (const auto& [model, now] : fetching_) {
    if (now.bytes_total == 0) continue;
    if (all.empty() || all.back().model != model) {
      if (all.size() == kFetchingMax) break;
      all.push_back({model, 0, 0});
    }
    all.back().bytes_done += now.bytes_done;
    all.back().bytes_total += now.bytes_total;
  }
  return all;
}

void NodeWeights::Serve(int fd) {
  StreamLink link = MakeStreamLink(fd, kFrameBytesMax);
  LimitFirstFrames(*link.receiver, 1, kFirstQuestionMax);
  if (streams_.fetch_add(1) < kWeightStreamsMax) {
    while (const std::optional<FrameBytes> frame = link.receiver->Receive()) {
      const auto question = WeightsMessage(*frame);
      if (!question) break;
      const std::vector<std::uint8_t> answer = server_.Answer(*question);
      if (!link.sender->Send(WeightsFrame(answer)).ok()) break;
      served_.Add(answer.size());
    }
  }
  streams_.fetch_sub(1);
}

}  // namespace shoal
