// A stage's life here: load (a task), wait for Activate, link and start (a task), serve, drain, unload (a task).
#include "node/stage_host.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <optional>

#include "base/log.h"
#include "engine/vocabulary.h"
#include "node/core_choice.h"
#include "node/head.h"
#include "node/stage_plan.h"
#include "pipeline/stage_worker.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

constexpr std::chrono::seconds kLinkMax{20};          // for all stages of a placement to open their links
constexpr std::chrono::milliseconds kLinkRetry{200};  // after a peer could not be reached
constexpr std::chrono::seconds kHeadWaitMax{20};      // of a generation, for the head to be linked
constexpr DurationUs kDrainPollUs = 50'000;

PlacementOptions OptionsOf(const PlacementRecord& placement, const StageHostOptions& host) {
  const PlaceOptions& asked = placement.request.options;
  PlacementOptions options;
  options.context_tokens = asked.context_tokens;
  options.slots = asked.slots;
  options.queue_max = asked.queue_max;
  options.micro_batch_tokens = asked.micro_batch_tokens;
  options.threads = host.threads;
  options.wire_type = asked.wire_type;
  options.kv_type = asked.kv_type;
  options.flash_attention = asked.flash_attention;
  options.reproducible = asked.reproducible;
  return options;
}

// One more than the stages keeps all of them busy; with delays between them, one more again.
std::int32_t InFlightMax(std::size_t stages) {
  const auto n = static_cast<std::int32_t>(stages);
  return std::min(kPipelineInFlightMax, n == 1 ? 2 : n + 2);
}

}  // namespace

struct StageHost::Hosted {
  PlacementRecord placement;
  std::int32_t index = 0;
  std::atomic<bool> cancelled{false};
  bool linking = false;   // loop only
  bool draining = false;  // loop only

  // Set by the tasks, one after the other.
  std::shared_ptr<const ModelFile> model;
  std::unique_ptr<Stage> stage;

  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;                   // guarded by mutex: nothing will be started any more
  std::shared_ptr<Head> head;           // guarded by mutex
  std::unique_ptr<StageWorker> worker;  // guarded by mutex

  bool is_head() const { return index == 0; }
  std::string Name() const { return placement.model + " stage " + std::to_string(index); }

  void End() {
    cancelled = true;
    std::shared_ptr<Head> ending_head;
    std::unique_ptr<StageWorker> ending_worker;
    {
      const std::lock_guard lock(mutex);
      ended = true;
      ending_head.swap(head);
      ending_worker.swap(worker);
      changed.notify_all();
    }
    if (ending_head) ending_head->Stop();
    if (ending_worker) ending_worker->Stop();
  }
};

StageHost::StageHost(Loop& loop, ModelLibrary& library, BlockingTasks& tasks, PipeRendezvous& pipes,
                     StageHostOptions options)
    : loop_(loop), library_(library), tasks_(tasks), pipes_(pipes), options_(std::move(options)) {}

StageHost::~StageHost() { Stop(); }

void StageHost::Stop() {
  std::map<Key, std::shared_ptr<Hosted>> ending;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    ending.swap(hosted_);
  }
  for (const auto& [key, hosted] : ending) hosted->cancelled = true;
  for (const auto& [key, hosted] : ending) {
    pipes_.CloseEpoch(hosted->placement.epoch);
    hosted->End();
  }
}

std::shared_ptr<StageHost::Hosted> StageHost::Find(const std::string& model, Epoch epoch) {
  const std::lock_guard lock(mutex_);
  const auto found = hosted_.find({model, epoch});
  return found == hosted_.end() ? nullptr : found->second;
}

void StageHost::Report(const std::shared_ptr<Hosted>& hosted, Status status) {
  loop_.Post([this, hosted, status = std::move(status)] {
    if (!hosted->cancelled) options_.on_ready(hosted->placement.model, hosted->placement.epoch, status);
  });
}

void StageHost::Load(const PlacementRecord& placement, std::int32_t index) {
  const auto hosted = std::make_shared<Hosted>();
  hosted->placement = placement;
  hosted->index = index;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || !hosted_.try_emplace({placement.model, placement.epoch}, hosted).second) return;
  }
  const bool started = tasks_.Run([this, hosted] {
    Status loaded = LoadNow(*hosted);
    if (!loaded.ok() && !hosted->cancelled) {
      Log(LogLevel::kWarning, "stages", hosted->Name() + " cannot be loaded: " + loaded.error().message);
    }
    Report(hosted, std::move(loaded));
  });
  if (!started) Report(hosted, Error{ErrorCode::kOverloaded, "this node does too much at a time"});
}

Status StageHost::LoadNow(Hosted& hosted) {
  const PlacementRecord& placement = hosted.placement;
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library_.FindFingerprint(placement.request.fingerprint));
  const LayerRange layers = placement.stages[static_cast<std::size_t>(hosted.index)].layers;
  if (layers.first < 0 || layers.last > model.file->info.n_layer) {
    return Error{ErrorCode::kInvalidArgument, "the placement names layers that the model does not have"};
  }
  SHOAL_RETURN_IF_ERROR(CheckStage(*model.file, layers));
  PlacementOptions options = OptionsOf(placement, options_);
  SHOAL_RETURN_IF_ERROR(CheckPlacement(options, model.file->info, placement.stages.size()));
  options.on_progress = [&hosted](std::size_t, float) { return !hosted.cancelled; };
  EngineOptions engine = MakeEngineOptions(options, model.file->info, layers, 0, 1);
  ChooseCores(ReadDeviceProfile(SystemFiles(), nullptr), options.threads > 0, engine);
  engine.memory_bytes_max = options_.memory_bytes_max;
  engine.other_bytes = SentBytes(options, model.file->info, layers);
  std::shared_ptr<const Vocabulary> vocabulary;
  if (layers.last == model.file->info.n_layer) { SHOAL_ASSIGN_OR_RETURN(vocabulary, library_.OpenVocabulary(model)); }
  SHOAL_ASSIGN_OR_RETURN(hosted.stage, Stage::Open(model.file, engine, vocabulary));
  hosted.model = model.file;
  return {};
}

void StageHost::Activate(const PlacementRecord& placement, std::int32_t index) {
  const std::shared_ptr<Hosted> hosted = Find(placement.model, placement.epoch);
  if (hosted == nullptr || hosted->linking || hosted->index != index) return;
  hosted->linking = true;
  const bool started = tasks_.Run([this, hosted] {
    Status linked = LinkNow(*hosted);
    if (linked.ok() || hosted->cancelled) return;
    Log(LogLevel::kWarning, "stages", hosted->Name() + " cannot be linked: " + linked.error().message);
    Report(hosted, std::move(linked));
  });
  if (!started) Report(hosted, Error{ErrorCode::kOverloaded, "this node does too much at a time"});
}

// A stream to another stage of the placement, its hello sent.
Result<StreamLink> StageHost::OpenPipe(const Hosted& hosted, std::int32_t to, PipeKind kind) {
  const auto deadline = std::chrono::steady_clock::now() + kLinkMax;
  const NodeId& peer = hosted.placement.stages[static_cast<std::size_t>(to)].node;
  for (;;) {
    Result<StreamLink> link = options_.open_pipe(peer);
    if (link.ok()) {
      // The hello comes back when someone has taken the stream: a peer that does too much at a time closes it.
      const Status said = link->sender->Send(EncodePipeHello({kind, hosted.index, to}, hosted.placement.epoch));
      if (said.ok() && link->receiver->Receive()) return link;
      link = Error{ErrorCode::kUnavailable, "it did not take the stream"};
    }
    if (hosted.cancelled || std::chrono::steady_clock::now() > deadline) return std::move(link).error();
    Log(LogLevel::kInfo, "stages",
        hosted.Name() + " does not reach stage " + std::to_string(to) + " yet: " + link.error().message);
    std::this_thread::sleep_for(kLinkRetry);
  }
}

Status StageHost::LinkNow(Hosted& hosted) {
  if (hosted.stage == nullptr) return Error{ErrorCode::kInternal, "a stage is started before it is loaded"};
  const auto last = static_cast<std::int32_t>(hosted.placement.stages.size()) - 1;
  std::unique_ptr<FrameSender> next;
  if (hosted.index < last) {
    SHOAL_ASSIGN_OR_RETURN(StreamLink link, OpenPipe(hosted, hosted.index + 1, PipeKind::kInput));
    next = SendingEnd(std::move(link));
  }
  return hosted.is_head() ? StartHead(hosted, std::move(next)) : StartWorker(hosted, std::move(next));
}

Status StageHost::StartWorker(Hosted& hosted, std::unique_ptr<FrameSender> next) {
  const PlacementRecord& placement = hosted.placement;
  SHOAL_ASSIGN_OR_RETURN(StreamLink results, OpenPipe(hosted, 0, PipeKind::kResults));
  const NodeId& previous = placement.stages[static_cast<std::size_t>(hosted.index) - 1].node;
  SHOAL_ASSIGN_OR_RETURN(StreamLink input, pipes_.Take(previous, placement.epoch,
                                                       {PipeKind::kInput, hosted.index - 1, hosted.index}, kLinkMax));
  const PlacementOptions placed = OptionsOf(placement, options_);
  const LayerRange layers = placement.stages[static_cast<std::size_t>(hosted.index)].layers;
  const StageWorkerOptions options{hosted.index, placement.epoch, placed.wire_type,
                                   SentBytes(placed, hosted.model->info, layers)};
  auto worker = std::make_unique<StageWorker>(std::move(hosted.stage), options, ReceivingEnd(std::move(input)),
                                              std::move(next), SendingEnd(std::move(results)));
  const std::lock_guard lock(hosted.mutex);
  if (hosted.ended) return Error{ErrorCode::kCancelled, "the placement was given up"};
  worker->Start();
  hosted.worker = std::move(worker);
  return {};
}

Status StageHost::StartHead(Hosted& hosted, std::unique_ptr<FrameSender> next) {
  const PlacementRecord& placement = hosted.placement;
  std::vector<std::unique_ptr<FrameReceiver>> results;
  for (std::size_t i = 1; i < placement.stages.size(); ++i) {
    const PipeHello hello{PipeKind::kResults, static_cast<StageIndex>(i), 0};
    SHOAL_ASSIGN_OR_RETURN(StreamLink link, pipes_.Take(placement.stages[i].node, placement.epoch, hello, kLinkMax));
    results.push_back(ReceivingEnd(std::move(link)));
  }
  const PlacementOptions options = OptionsOf(placement, options_);
  HeadOptions head_options;
  head_options.schedule =
      MakeScheduleOptions(options, *hosted.model, placement.stages.size(), InFlightMax(placement.stages.size()));
  head_options.epoch = placement.epoch;
  head_options.wire_type = options.wire_type;
  head_options.sent_bytes_max = SentBytes(options, hosted.model->info, placement.stages.front().layers);
  head_options.context_tokens = ContextTokens(options, hosted.model->info);
  head_options.n_vocab = hosted.model->info.n_vocab;
  head_options.on_broken = [this, model = placement.model, epoch = placement.epoch](const std::string& why) {
    Log(LogLevel::kWarning, "stages", "the pipeline of " + model + " is broken: " + why);
    if (const std::shared_ptr<Hosted> found = Find(model, epoch)) Report(found, Error{ErrorCode::kUnavailable, why});
  };
  std::shared_ptr<Head> head =
      Head::Start(std::move(head_options), std::move(hosted.stage), std::move(next), std::move(results));
  const std::lock_guard lock(hosted.mutex);
  if (hosted.ended) return Error{ErrorCode::kCancelled, "the placement was given up"};
  hosted.head = std::move(head);
  hosted.changed.notify_all();
  return {};
}

Result<std::unique_ptr<GenerationHandle>> StageHost::Generate(const std::string& model, Epoch epoch,
                                                              GenerateOptions options) {
  const std::shared_ptr<Hosted> hosted = Find(model, epoch);
  if (hosted == nullptr || !hosted->is_head()) {
    return Error{ErrorCode::kStale, "the head of this placement is not here (any more)"};
  }
  std::shared_ptr<Head> head;
  {
    std::unique_lock lock(hosted->mutex);
    hosted->changed.wait_for(lock, kHeadWaitMax, [&] { return hosted->ended || hosted->head != nullptr; });
    head = hosted->head;
    if (hosted->ended) return Error{ErrorCode::kStale, "this placement has ended"};
  }
  if (head == nullptr) return Error{ErrorCode::kUnavailable, "the stages of '" + model + "' are not linked yet"};
  return head->Generate(std::move(options));
}

std::map<std::string, std::vector<StageTotals>> StageHost::HeadTotals() {
  std::map<std::string, std::shared_ptr<Hosted>> hosted;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, one] : hosted_) hosted[key.first] = one;  // the newest epoch comes last
  }
  std::map<std::string, std::vector<StageTotals>> totals;
  for (const auto& [model, one] : hosted) {
    std::shared_ptr<Head> head;
    {
      const std::lock_guard lock(one->mutex);
      head = one->head;
    }
    if (head != nullptr) totals[model] = head->Totals();
  }
  return totals;
}

void StageHost::Drain(const PlacementRecord& placement, std::int32_t index) {
  const std::shared_ptr<Hosted> hosted = Find(placement.model, placement.epoch);
  if (hosted == nullptr || index != 0 || hosted->draining) return;
  hosted->draining = true;
  PollDrained(hosted);
}

void StageHost::PollDrained(const std::shared_ptr<Hosted>& hosted) {
  if (hosted->cancelled) return;
  bool drained = false;
  {
    const std::lock_guard lock(hosted->mutex);
    drained = hosted->ended || hosted->head == nullptr || hosted->head->Drain();
  }
  if (drained) return options_.on_drained(hosted->placement.model, hosted->placement.epoch);
  loop_.After(kDrainPollUs, [this, hosted] { PollDrained(hosted); });
}

void StageHost::Unload(const std::string& model, Epoch epoch) {
  std::shared_ptr<Hosted> hosted;
  {
    const std::lock_guard lock(mutex_);
    const auto found = hosted_.find({model, epoch});
    if (found == hosted_.end()) return;
    hosted = std::move(found->second);
    hosted_.erase(found);
  }
  hosted->cancelled = true;
  pipes_.CloseEpoch(epoch);
  if (!tasks_.Run([hosted] { hosted->End(); })) hosted->End();
}

}  // namespace shoal
