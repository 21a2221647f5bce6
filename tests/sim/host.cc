// A stage's life: load or take over, wait for Activate, link, serve, end. Its micro-batches are in host_work.cc.
#include "sim/host.h"

#include "sim/hosted.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kLinkMaxUs = 10 * kSecond, kLinkRetryUs = 200 * kMillisecond;
constexpr DurationUs kHeadWaitUs = 20 * kSecond;
constexpr StreamId kLocalStreams = StreamId{1} << 62;

}  // namespace

NodeId NodeIdOf(int number) {
  NodeId id;
  id.bytes.fill(static_cast<std::uint8_t>(number * 37));
  id.bytes[0] = static_cast<std::uint8_t>(number + 1);
  return id;
}
int NumberOf(const NodeId& id) { return id.bytes[0] - 1; }

SimHost::SimHost(Network& network, Checks& checks, int self, const std::vector<FakeModel>& models,
                 const Hardware& hardware, CopyRules rules, Hooks hooks)
    : network_(network),
      checks_(checks),
      self_(self),
      models_(models),
      hardware_(hardware),
      hooks_(std::move(hooks)),
      outlets_(network, self),
      copies_(network, self, models, hardware, rules, hooks_.on_copy_ready) {}

SimHost::~SimHost() = default;

SimHost::Hosted* SimHost::Find(const Key& key) {
  const auto found = hosted_.find(key);
  return found == hosted_.end() ? nullptr : found->second.get();
}

void SimHost::Later(const Key& key, DurationUs delay, std::function<void(Hosted&)> task) {
  network_.Post(self_, delay, [this, key, serial = Find(key)->serial, task = std::move(task)] {
    Hosted* hosted = Find(key);
    if (hosted != nullptr && hosted->serial == serial) task(*hosted);
  });
}

// ---- Loading --------------------------------------------------------------------------------------------------------

void SimHost::Load(const PlacementRecord& placement, std::int32_t index, const StageSource& source) {
  const Key key{placement.model, placement.epoch, index};
  const Epoch live = activated_[placement.model];
  Epoch newest = live;
  for (const auto& [other, hosted] : hosted_) {
    if (std::get<0>(other) == placement.model) newest = std::max(newest, std::get<1>(other));
  }
  if (placement.epoch <= live || placement.epoch < newest) {
    checks_.Violate(Invariant::kNoStaleEpoch, "node " + std::to_string(self_) + " takes up epoch " +
                                                  std::to_string(placement.epoch) + " of '" + placement.model +
                                                  "' though it knows " + std::to_string(newest));
  }
  checks_.OnStageWorks(self_, placement);
  auto hosted = std::make_unique<Hosted>();
  hosted->serial = ++serials_;
  hosted->placement = placement;
  hosted->index = index;
  hosted->source = source;
  if (!hosted_.try_emplace(key, std::move(hosted)).second) return;
  if (source.kind != StageSource::Kind::kDisk) return;  // nothing to do before Activate
  Later(key, LoadTime(network_.rng(), hardware_), [this, key](Hosted& loaded) {
    const auto& [model, epoch, stage] = key;
    if (network_.rng().Uniform() < hardware_.load_failures) {
      return hooks_.on_ready(model, epoch, stage, Error{ErrorCode::kIo, "the disk failed"});
    }
    loaded.stage = std::make_unique<SimStage>(ModelOf(models_, model), loaded.placement.LayersOf(stage));
    hooks_.on_ready(model, epoch, stage, {});
  });
}

std::uint64_t SimHost::bytes_loaded() const {
  std::int32_t layers = copies_.layers();
  for (const auto& [key, hosted] : hosted_) layers += hosted->placement.LayersOf(hosted->index).count();
  return kLayerBytes * static_cast<std::uint64_t>(layers);
}

// ---- Linking --------------------------------------------------------------------------------------------------------

void SimHost::Activate(const PlacementRecord& placement, const std::vector<std::int32_t>& indices) {
  Epoch& highest = activated_[placement.model];
  highest = std::max(highest, placement.epoch);
  for (const std::int32_t index : indices) ActivateOne({placement.model, placement.epoch, index});
}

void SimHost::ActivateOne(const Key& key) {
  Hosted* hosted = Find(key);
  if (hosted == nullptr || hosted->linking) return;
  if (hosted->source.kind != StageSource::Kind::kDisk) hosted->stage = TakeOver(*hosted);
  if (hosted->stage == nullptr) return;
  checks_.OnStageWorks(self_, hosted->placement);
  hosted->linking = true;
  Later(key, kLinkMaxUs, [this, key](Hosted& late) {
    if (!late.started) hooks_.on_broken(std::get<0>(key), std::get<1>(key));
  });
  Link(key);
}

// What it takes over ends here, and goes on with what it holds; unless it failed.
std::unique_ptr<SimStage> SimHost::TakeOver(Hosted& hosted) {
  const std::string& model = hosted.placement.model;
  const LayerRange layers = hosted.placement.LayersOf(hosted.index);
  std::unique_ptr<SimStage> stage;
  bool failed = false;
  if (hosted.source.kind == StageSource::Kind::kRunning) {
    TakeOutlets(hosted);
    if (Hosted* from = Find({model, hosted.source.epoch, hosted.source.index})) {
      End(*from);
      stage = std::move(from->stage);
      failed = from->failed;
    }
    if (stage && !failed) ++checks_.recovery.taken_over;
  } else {
    stage = copies_.Take(model, layers);
    if (stage) ++checks_.recovery.copies_taken;
    if (stage && stage->holds_rows()) ++checks_.recovery.copies_that_knew;
  }
  if (stage == nullptr) checks_.Violate(Invariant::kNoStaleEpoch, "a stage is taken over that is not there");
  if (stage == nullptr || failed) return std::make_unique<SimStage>(ModelOf(models_, model), layers);
  stage->CloseAll();
  return stage;
}

// The stage that this one takes over has copies that know what it holds, and need not be told anew.
void SimHost::TakeOutlets(Hosted& hosted) {
  if (hosted.source.kind != StageSource::Kind::kRunning) return;
  Hosted* from = Find({hosted.placement.model, hosted.source.epoch, hosted.source.index});
  if (from == nullptr) return;
  hosted.outlets.merge(from->outlets);
  for (const auto& [node, outlet] : std::exchange(from->outlets, {})) outlet->Stop();
}

void SimHost::SetCopies(const std::string& model, Epoch epoch, const std::vector<std::vector<NodeId>>& copies) {
  for (std::size_t i = 0; i < copies.size(); ++i) {
    Hosted* hosted = Find({model, epoch, static_cast<std::int32_t>(i)});
    if (hosted == nullptr) continue;
    TakeOutlets(*hosted);
    std::set<int> nodes;
    for (const NodeId& node : copies[i]) nodes.insert(NumberOf(node));
    std::erase_if(hosted->outlets, [&](const auto& outlet) { return !nodes.contains(outlet.first); });
    const LayerRange layers = hosted->placement.LayersOf(hosted->index);
    const PlaceRequest& request = hosted->placement.request;
    for (const int node : nodes) {
      if (hosted->outlets.contains(node)) continue;
      hosted->outlets[node] =
          outlets_.Start(node, {model, request.fingerprint, layers.first, layers.last, OptionsHash(request.options)});
    }
  }
}

void SimHost::LinkAll(Epoch epoch) {
  std::vector<Key> keys;
  for (const auto& [known, hosted] : hosted_) {
    if (std::get<1>(known) == epoch) keys.push_back(known);
  }
  for (const Key& one : keys) Link(one);
}

// A stream to this very node is memory.
StreamId SimHost::OpenTo(int peer) {
  if (peer != self_) return network_.Open(self_, peer, Protocol::kPipe);
  const StreamId here = kLocalStreams + 2 * ++local_streams_;
  network_.Post(self_, 0, [this, here] {
    OnStream(here ^ 1, self_);
    OnOpened(here);
  });
  return here;
}

void SimHost::SendOn(StreamId stream, FrameBytes frame) {
  if (stream < kLocalStreams) return network_.Send(self_, stream, std::move(frame));
  network_.Post(self_, 0,
                [this, stream, frame = std::move(frame)]() mutable { OnFrame(stream ^ 1, std::move(frame)); });
}

void SimHost::CloseOn(StreamId stream) {
  if (stream < kLocalStreams) return network_.Close(self_, stream);
  network_.Post(self_, 0, [this, stream] { OnStreamEnd(stream ^ 1); });
}

// Does what is left to do until this stage can start; called again whenever something has come.
void SimHost::Link(const Key& key) {
  Hosted* hosted = Find(key);
  if (hosted == nullptr || !hosted->linking || hosted->started) return;
  const std::vector<StagePlace>& stages = hosted->placement.stages;
  const std::int32_t index = hosted->index, last = static_cast<std::int32_t>(stages.size()) - 1;
  bool ready = true;
  if (index < last) ready = Dial(key, *hosted, hosted->next, index + 1, Use::kNext) && ready;
  if (index > 0) ready = Dial(key, *hosted, hosted->results, 0, Use::kResults) && ready;
  const auto peer = [&](std::int32_t stage) { return NumberOf(stages[static_cast<std::size_t>(stage)].node); };
  if (index > 0 && hosted->inputs.empty()) {
    Waiting taken;
    if (Take(key, peer(index - 1), {PipeKind::kInput, index - 1, index}, Use::kInput, &taken)) {
      hosted->inputs.insert(taken.stream);
      for (FrameBytes& frame : taken.early) hosted->queue.push_back(std::move(frame));
      hosted->input_ended = taken.ended;
    } else {
      ready = false;
    }
  }
  for (std::int32_t stage = 1; index == 0 && stage <= last; ++stage) {
    if (hosted->heard_stages.contains(stage)) continue;
    Waiting taken;
    if (Take(key, peer(stage), {PipeKind::kResults, stage, 0}, Use::kResultsOf, &taken)) {
      hosted->heard_stages.insert(stage);
      hosted->inputs.insert(taken.stream);
      for (FrameBytes& frame : taken.early) hosted->early_results.push_back(std::move(frame));
      hosted->input_ended = hosted->input_ended || taken.ended;
    } else {
      ready = false;
    }
  }
  if (ready) Begin(key, *hosted);
}

// True once the stream is up.
bool SimHost::Dial(const Key& key, Hosted& hosted, Outgoing& outgoing, std::int32_t to, Use use) {
  if (outgoing.stream != 0) return outgoing.up;
  outgoing.to = to;
  const StreamId stream = outgoing.stream =
      OpenTo(NumberOf(hosted.placement.stages[static_cast<std::size_t>(to)].node));
  routes_[stream] = {key, use};
  Later(key, kStreamOpenUs, [this, key, stream, use](Hosted& late) {
    Outgoing& waits = use == Use::kNext ? late.next : late.results;
    if (waits.stream == stream && !waits.up) DialFailed(key, waits);
  });
  return false;
}

void SimHost::DialFailed(const Key& key, Outgoing& outgoing) {
  CloseOn(outgoing.stream);
  routes_.erase(outgoing.stream);
  outgoing = {};
  Later(key, kLinkRetryUs, [this, key](Hosted&) { Link(key); });
}

void SimHost::OnOpened(StreamId stream) {
  outlets_.OnOpened(stream);
  const auto route = routes_.find(stream);
  if (route == routes_.end()) return;
  const Key key = route->second.key;
  Hosted* hosted = Find(key);
  if (hosted == nullptr) return;
  const bool next = route->second.use == Use::kNext;
  const PipeHello hello{next ? PipeKind::kInput : PipeKind::kResults, hosted->index,
                        next ? hosted->index + 1 : StageIndex{0}};
  SendOn(stream, EncodePipeHello(hello, std::get<1>(key)));
  Outgoing& outgoing = next ? hosted->next : hosted->results;
  if (outgoing.stream == stream) outgoing.up = true;
  Link(key);
}

bool SimHost::Take(const Key& key, int peer, const PipeHello& hello, Use use, Waiting* taken) {
  const auto found = waiting_.find({peer, std::get<1>(key), hello.kind, hello.from, hello.to});
  if (found == waiting_.end()) return false;
  *taken = std::move(found->second);
  waiting_.erase(found);
  waiting_by_stream_.erase(taken->stream);
  routes_[taken->stream] = {key, use};
  return true;
}

void SimHost::Begin(const Key& key, Hosted& hosted) {
  hosted.started = true;
  const FrameBytes inventory = EncodeInventory(hosted.stage->Inventory(hosted.index), std::get<1>(key));
  if (hosted.index == 0) {
    StartHead(key, hosted);
    return hosted.head->OnResultFrame(inventory);
  }
  if (Report(hosted, inventory)) Process(key);
}

void SimHost::StartHead(const Key& key, Hosted& hosted) {
  const FakeModel& model = ModelOf(models_, std::get<0>(key));
  ScheduleOptions options;
  const auto stages = static_cast<std::int32_t>(hosted.placement.stages.size());
  options.stages = stages;
  for (const StagePlace& stage : hosted.placement.stages) options.stage_layers.push_back(stage.layers.count());
  options.slots_max = model.slots;
  options.batch_rows_max = 32;
  options.batch_sequences_max = options.output_rows_max = model.slots;
  options.kv_tokens_max = model.context_tokens;
  options.in_flight_max = stages == 1 ? 2 : stages + 2;
  if (stages > 1) options.drafts_max = stages + 2;
  options.draft_chance_min = 0;  // also those that are mostly wrong
  options.queue_max = 128;
  SimHead::Hooks hooks;
  hooks.to_first = [this, key](FrameBytes frame) {
    Find(key)->queue.push_back(std::move(frame));
    Later(key, 0, [this, key](Hosted&) { Process(key); });
  };
  hooks.soon = [this, key](std::function<void()> task) {
    Later(key, 0, [task = std::move(task)](Hosted&) { task(); });
  };
  hooks.on_broken = [this, key](const std::string&) {
    Later(key, 0, [this, key](Hosted&) { hooks_.on_broken(std::get<0>(key), std::get<1>(key)); });
  };
  hosted.head = std::make_unique<SimHead>(options, std::get<1>(key), std::move(hooks));
  for (const FrameBytes& frame : std::exchange(hosted.early_results, {})) hosted.head->OnResultFrame(frame);
  if (hosted.input_ended) hosted.head->Break("the link from a stage to the head was lost");
  for (auto& asked : std::exchange(hosted.waiting, {})) {
    Generate(std::get<0>(key), std::get<1>(key), std::move(asked.request), std::move(asked.accepted),
             std::move(asked.sink));
  }
}

// ---- Generations, the end -------------------------------------------------------------------------------------------

void SimHost::Generate(const std::string& model, Epoch epoch, GenerationRequest request, Accepted accepted,
                       SimHead::Sink sink) {
  const Key key{model, epoch, 0};
  Hosted* hosted = Find(key);
  if (hosted == nullptr) {
    return accepted(Error{ErrorCode::kStale, "the head of this placement is not here (any more)"});
  }
  if (hosted->head == nullptr) {
    const std::uint64_t number = ++hosted->last_waiting;
    hosted->waiting.push_back({number, std::move(request), std::move(accepted), std::move(sink)});
    return Later(key, kHeadWaitUs, [number](Hosted& late) {
      for (auto one = late.waiting.begin(); one != late.waiting.end(); ++one) {
        if (one->number != number) continue;
        const Accepted answer = std::move(one->accepted);
        late.waiting.erase(one);
        return answer(Error{ErrorCode::kUnavailable, "the stages are not linked yet"});
      }
    });
  }
  const Result<GenerationId> id = hosted->head->Submit(std::move(request), std::move(sink));
  if (id.ok() && (epoch < activated_[model] || !hooks_.may_serve(model, epoch))) {
    checks_.Violate(Invariant::kNoStaleEpoch, "the head at node " + std::to_string(self_) +
                                                  " starts a generation under epoch " + std::to_string(epoch) +
                                                  " though it knows " + std::to_string(activated_[model]));
  }
  accepted(id);
}

void SimHost::Cancel(const std::string& model, Epoch epoch, GenerationId id) {
  if (Hosted* hosted = Find({model, epoch, 0}); hosted != nullptr && hosted->head) hosted->head->Cancel(id);
}

void SimHost::Unload(const std::string& model, Epoch epoch, std::int32_t index) {
  const auto found = hosted_.find({model, epoch, index});
  if (found == hosted_.end()) return;
  const std::unique_ptr<Hosted> hosted = std::move(found->second);
  hosted_.erase(found);
  closed_.insert(epoch);
  for (auto waits = waiting_.begin(); waits != waiting_.end();) {
    if (std::get<1>(waits->first) != epoch) {
      ++waits;
      continue;
    }
    CloseOn(waits->second.stream);
    waiting_by_stream_.erase(waits->second.stream);
    waits = waiting_.erase(waits);
  }
  End(*hosted);
}

void SimHost::End(Hosted& hosted) {
  if (hosted.head) {
    const ScheduleStats stats = hosted.head->stats();
    checks_.recovery.row_layers_recovered += stats.recovery.row_layers;
    checks_.recovery.row_layers_from_nothing += stats.recovery.row_layers_from_nothing;
    checks_.drafts += stats.drafts;
    hosted.head->Stop();
  }
  for (const auto& asked : std::exchange(hosted.waiting, {})) {
    asked.accepted(Error{ErrorCode::kStale, "this placement has ended"});
  }
  hosted.outlets.clear();
  EndWorker(hosted, "stopped");
}

}  // namespace shoal::sim
