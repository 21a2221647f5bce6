// A stage's life here: load (a task), wait for Activate, link and start (a task), serve, end (a task). One that takes
// over from another one, or from a copy, ends that one instead of loading, and goes on with what it gives back.
#include "node/stage_host.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "base/log.h"
#include "device/cpu_affinity.h"
#include "engine/vocabulary.h"
#include "node/copy_outlet.h"
#include "node/core_choice.h"
#include "node/head.h"
#include "node/hosted_stage.h"
#include "node/stage_plan.h"
#include "pipeline/stage_worker.h"
#include "transport/memory.h"
#include "wire/stream_messages.h"

namespace shoal {
namespace {

constexpr std::chrono::seconds kLinkMax{10};          // for all stages of a placement to open their links
constexpr std::chrono::milliseconds kLinkRetry{200};  // after a peer could not be reached
constexpr std::chrono::seconds kHeadWaitMax{20};      // of a generation, for the head to be linked
// Frames that may wait between two stages of this node: one being computed, one ready.
constexpr std::size_t kLocalLinkFramesMax = 4;

PlacementOptions OptionsOf(const PlacementRecord& placement) {
  const PlaceOptions& asked = placement.request.options;
  PlacementOptions options;
  options.context_tokens = asked.context_tokens;
  options.slots = asked.slots;
  options.queue_max = asked.queue_max;
  options.micro_batch_tokens = asked.micro_batch_tokens;
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

StageHost::StageHost(Loop& loop, ModelLibrary& library, BlockingTasks& tasks, PipeRendezvous& pipes,
                     StageHostOptions options)
    : loop_(loop),
      library_(library),
      tasks_(tasks),
      pipes_(pipes),
      options_(std::move(options)),
      ended_(std::make_shared<EndedHeads>()) {}

StageHost::~StageHost() { Stop(); }

void StageHost::Stop() {
  std::vector<std::shared_ptr<HostedStage>> ending;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (const auto& [key, hosted] : hosted_) ending.push_back(hosted);
    for (const auto& [key, copy] : copies_) ending.push_back(copy);
    hosted_.clear();
    copies_.clear();
  }
  for (const auto& hosted : ending) hosted->cancelled = true;
  for (const auto& hosted : ending) {
    pipes_.CloseEpoch(hosted->placement.epoch);
    (void)hosted->Release();
  }
}

std::shared_ptr<HostedStage> StageHost::Find(const std::string& model, Epoch epoch, std::int32_t index) {
  const std::lock_guard lock(mutex_);
  const auto found = hosted_.find({model, epoch, index});
  return found == hosted_.end() ? nullptr : found->second;
}

std::shared_ptr<HostedStage> StageHost::Make(const PlacementRecord& placement, std::int32_t index) {
  auto hosted = std::make_shared<HostedStage>();
  hosted->placement = placement;
  hosted->index = index;
  hosted->ended_heads = ended_;
  return hosted;
}

void StageHost::Report(const std::shared_ptr<HostedStage>& hosted, Status status) {
  loop_.Post([this, hosted, status = std::move(status)] {
    const PlacementRecord& placement = hosted->placement;
    if (!hosted->cancelled) options_.on_ready(placement.model, placement.epoch, hosted->index, status);
  });
}

void StageHost::ReportBroken(const std::shared_ptr<HostedStage>& hosted, const std::string& why) {
  loop_.Post([this, hosted, why] {
    if (hosted->cancelled) return;
    Log(LogLevel::kWarning, "stages", hosted->Name() + " has lost the others: " + why);
    options_.on_broken(hosted->placement.model, hosted->placement.epoch);
  });
}

// What was dropped gives its memory back first.
Status StageHost::LoadAfter(const std::vector<std::shared_ptr<HostedStage>>& dropped, HostedStage& hosted) {
  for (const std::shared_ptr<HostedStage>& one : dropped) (void)one->Release();
  const std::lock_guard working(hosted.work);
  Status loaded = LoadNow(hosted);
  if (!loaded.ok() && !hosted.cancelled) {
    Log(LogLevel::kWarning, "stages", hosted.Name() + " cannot be loaded: " + loaded.error().message);
  }
  return loaded;
}

void StageHost::Load(const PlacementRecord& placement, std::int32_t index, const StageSource& source) {
  const std::shared_ptr<HostedStage> hosted = Make(placement, index);
  hosted->source = source;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || !hosted_.try_emplace({placement.model, placement.epoch, index}, hosted).second) return;
  }
  if (source.kind != StageSource::Kind::kDisk) return;
  const bool started = tasks_.Run(
      [this, hosted, dropped = std::exchange(dropped_, {})] { Report(hosted, LoadAfter(dropped, *hosted)); });
  if (!started) Report(hosted, Error{ErrorCode::kOverloaded, "this node does too much at a time"});
}

void StageHost::LoadCopy(const PlacementRecord& placement, std::int32_t index) {
  const std::shared_ptr<HostedStage> copy = Make(placement, index);
  const LayerRange layers = copy->layers();
  {
    const std::lock_guard lock(mutex_);
    if (stopped_ || !copies_.try_emplace({placement.model, layers.first, layers.last}, copy).second) return;
  }
  const auto report = [this, copy](Status status) {
    loop_.Post([this, copy, status = std::move(status)] {
      if (copy->cancelled) return;
      if (!status.ok()) DropCopy(copy->placement.model, copy->layers());
      options_.on_copy_ready(copy->placement.model, copy->layers(), status);
    });
  };
  const bool started =
      tasks_.Run([this, copy, report, dropped = std::exchange(dropped_, {})] { report(LoadAfter(dropped, *copy)); });
  if (!started) report(Error{ErrorCode::kOverloaded, "this node does too much at a time"});
}

void StageHost::DropCopy(const std::string& model, LayerRange layers) {
  if (const std::shared_ptr<HostedStage> copy = TakeCopy(model, layers)) EndSoon(copy);
}

std::shared_ptr<HostedStage> StageHost::TakeCopy(const std::string& model, LayerRange layers) {
  const std::lock_guard lock(mutex_);
  const auto node = copies_.extract({model, layers.first, layers.last});
  return node.empty() ? nullptr : node.mapped();
}

// ---- What copies hold -----------------------------------------------------------------------------------------------

// On the loop: the stage that this one takes over has copies that know what it holds, and need not be told anew.
void StageHost::TakeOutlets(HostedStage& hosted) {
  if (hosted.source.kind != StageSource::Kind::kRunning) return;
  const auto from = Find(hosted.placement.model, hosted.source.epoch, hosted.source.index);
  if (from == nullptr) return;
  const std::scoped_lock lock(hosted.mutex, from->mutex);
  if (hosted.ended || from->outlets.empty()) return;
  hosted.outlets.merge(from->outlets);
  for (const auto& [node, outlet] : std::exchange(from->outlets, {})) outlet->Stop();
  from->TellWhoCopies();
}

void StageHost::SetCopies(const std::string& model, Epoch epoch, const std::vector<std::vector<NodeId>>& copies) {
  if (!options_.open_copy) return;
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const std::shared_ptr<HostedStage> hosted = Find(model, epoch, static_cast<std::int32_t>(i));
    if (hosted == nullptr) continue;
    TakeOutlets(*hosted);
    const LayerRange layers = hosted->layers();
    const PlaceRequest& request = hosted->placement.request;
    const std::lock_guard lock(hosted->mutex);
    if (hosted->ended) continue;
    bool changed = false;
    for (auto at = hosted->outlets.begin(); at != hosted->outlets.end();) {
      const bool still = std::find(copies[i].begin(), copies[i].end(), at->first) != copies[i].end();
      if (!still) at->second->Stop();
      changed = changed || !still;
      at = still ? std::next(at) : hosted->outlets.erase(at);
    }
    for (const NodeId& node : copies[i]) {
      if (hosted->outlets.contains(node)) continue;
      const auto outlet = std::make_shared<CopyOutlet>(
          CopyHello{model, request.fingerprint, layers.first, layers.last, OptionsHash(request.options)},
          [open = options_.open_copy, node] { return open(node); });
      if (!CopyOutlet::Start(outlet, tasks_)) continue;
      hosted->outlets[node] = outlet;
      changed = true;
    }
    if (changed) hosted->TellWhoCopies();
  }
}

void StageHost::SetRest(double rest) {
  rest_ = rest;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, hosted] : hosted_) {
    const std::lock_guard hosted_lock(hosted->mutex);
    if (hosted->head) hosted->head->SetRest(rest);
    if (hosted->worker) hosted->worker->SetRest(rest);
  }
}

void StageHost::SetDraftChances(std::map<NodeId, double> chances) {
  const std::lock_guard lock(mutex_);
  if (chances == draft_chances_) return;
  draft_chances_ = std::move(chances);
  for (const auto& [key, hosted] : hosted_) {
    const std::lock_guard hosted_lock(hosted->mutex);
    if (hosted->head) hosted->head->SetDraftChance(DraftChance(hosted->placement));
  }
}

double StageHost::DraftChance(const PlacementRecord& placement) const {
  double chance = 0;
  for (const StagePlace& stage : placement.stages) {
    const auto asked = draft_chances_.find(stage.node);
    if (asked != draft_chances_.end()) chance = std::max(chance, asked->second);
  }
  return chance;
}

void StageHost::ServeCopy(int fd) {
  StreamLink link = MakeStreamLink(fd, kCopyFrameBytesMax);
  LimitFirstFrames(*link.receiver, 1, kFirstFramesMax);
  const std::optional<FrameBytes> first = link.receiver->Receive();
  const Result<CopyHello> hello = first ? DecodeCopyHello(*first) : Error{ErrorCode::kUnavailable, ""};
  if (!hello.ok()) return;
  std::shared_ptr<HostedStage> copy;
  {
    const std::lock_guard lock(mutex_);
    const auto found = copies_.find({hello->model, hello->first, hello->last});
    if (found != copies_.end()) copy = found->second;
  }
  if (copy == nullptr || copy->placement.request.fingerprint != hello->fingerprint ||
      OptionsHash(copy->placement.request.options) != hello->options_hash) {
    return;
  }
  const std::uint64_t feeding = ++copy->feeding;
  // Taken over, dropped, or told by a later stream: then this one ends.
  const auto with_stage = [&](const auto& what) {
    const std::lock_guard working(copy->work);
    return !copy->cancelled && copy->stage != nullptr && copy->feeding == feeding && what(*copy->stage);
  };
  const auto keep_sent = [&](Stage& stage) {
    const PlacementOptions placed = OptionsOf(copy->placement);
    stage.KeepSent(placed.wire_type, SentBytes(placed, copy->model->info, copy->layers()));
    stage.EmptyAll();
    return true;
  };
  bool goes_on = with_stage(keep_sent);
  while (goes_on) {
    const std::optional<FrameBytes> frame = link.receiver->Receive();
    const Result<CopyRows> rows = frame ? DecodeCopyRows(*frame) : Error{ErrorCode::kUnavailable, ""};
    goes_on = rows.ok() && with_stage([&](Stage& stage) {
                // A sequence that has no room stays as it was, and its later rows are refused, until the stage forgets
                // some of it.
                const Status taken = stage.TakeRows(*rows);
                return taken.ok() || taken.error().code != ErrorCode::kUnsupported;
              });
  }
}

void StageHost::EndSoon(const std::shared_ptr<HostedStage>& hosted) {
  if (hosted->taken) return;
  hosted->cancelled = true;
  dropped_.push_back(hosted);
  if (dropped_.size() > kStagesMax) dropped_.erase(dropped_.begin());  // their own tasks see to them
  if (!tasks_.Run([hosted] { (void)hosted->Release(); })) (void)hosted->Release();
}

Status StageHost::LoadNow(HostedStage& hosted) {
  UseProcessCpus();  // the loop, which made this thread, waits on slow cores
  const PlacementRecord& placement = hosted.placement;
  const LayerRange layers = placement.stages[static_cast<std::size_t>(hosted.index)].layers;
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model,
                         options_.obtain(placement, layers, [&hosted] { return hosted.cancelled.load(); }));
  if (layers.first < 0 || layers.last > model.file->info.n_layer) {
    return Error{ErrorCode::kInvalidArgument, "the placement names layers that the model does not have"};
  }
  SHOAL_RETURN_IF_ERROR(CheckStage(*model.file, layers));
  PlacementOptions options = OptionsOf(placement);
  if (options_.threads) options.threads = options_.threads(model.file->info.quantization);
  SHOAL_RETURN_IF_ERROR(CheckPlacement(options, model.file->info, placement.stages.size()));
  options.on_progress = [&hosted](std::size_t, float) { return !hosted.cancelled; };
  EngineOptions engine = MakeEngineOptions(options, model.file->info, layers, 0, 1);
  ChooseCores(ReadDeviceProfile(SystemFiles(), nullptr), options.threads > 0, engine);
  engine.memory_bytes_max = options_.memory_bytes_max;
  engine.other_bytes = SentBytes(options, model.file->info, layers);
  Stage::OpenVocabulary vocabulary;
  if (layers.last == model.file->info.n_layer) vocabulary = [&] { return library_.OpenVocabulary(model); };
  SHOAL_ASSIGN_OR_RETURN(hosted.stage, Stage::Open(model.file, engine, vocabulary, options_.open_engine));
  hosted.model = model.file;
  return {};
}

void StageHost::Activate(const PlacementRecord& placement, std::int32_t index) {
  const std::shared_ptr<HostedStage> hosted = Find(placement.model, placement.epoch, index);
  if (hosted == nullptr || hosted->linking) return;
  hosted->linking = true;
  if (hosted->source.kind == StageSource::Kind::kStandby) hosted->from = TakeCopy(placement.model, hosted->layers());
  if (hosted->source.kind == StageSource::Kind::kRunning) {
    hosted->from = Find(placement.model, hosted->source.epoch, hosted->source.index);
    TakeOutlets(*hosted);
    pipes_.CloseEpoch(hosted->source.epoch);  // what still waits for its links
  }
  if (hosted->from) hosted->from->taken = hosted->from->cancelled = true;
  const bool started = tasks_.Run([this, hosted] {
    const std::lock_guard working(hosted->work);
    Status got = Obtain(*hosted);
    if (!got.ok()) return Report(hosted, std::move(got));
    const Status linked = LinkNow(hosted);
    if (!linked.ok()) ReportBroken(hosted, linked.error().message);
  });
  if (!started) Report(hosted, Error{ErrorCode::kOverloaded, "this node does too much at a time"});
}

// Sees to it that the stage is there.
Status StageHost::Obtain(HostedStage& hosted) {
  if (const std::shared_ptr<HostedStage> from = std::exchange(hosted.from, nullptr)) {
    hosted.stage = from->Release();
    hosted.model = from->model;
  }
  if (hosted.cancelled) return Error{ErrorCode::kCancelled, "the placement was given up"};
  if (hosted.stage != nullptr) return {};
  return LoadNow(hosted);  // it failed while it ran
}

// The sending end of a link to another stage of the placement: a stream, its hello sent, or memory.
Result<std::unique_ptr<FrameSender>> StageHost::OpenPipe(const HostedStage& hosted, std::int32_t to, PipeKind kind) {
  const PipeHello hello{kind, hosted.index, to};
  const NodeId& peer = hosted.placement.stages[static_cast<std::size_t>(to)].node;
  if (peer == options_.self) {
    MemoryLink link = MakeMemoryLink(kind == PipeKind::kInput ? kLocalLinkFramesMax : kPipelineLinkFramesMax);
    pipes_.Add(peer, hosted.placement.epoch, hello, std::move(link.receiver));
    return std::move(link.sender);
  }
  const auto deadline = std::chrono::steady_clock::now() + kLinkMax;
  for (;;) {
    Result<StreamLink> link = options_.open_pipe(peer);
    if (link.ok()) {
      const Status said = link->sender->Send(EncodePipeHello(hello, hosted.placement.epoch));
      if (said.ok()) return SendingEnd(*std::move(link));
      link = said.error();
    }
    if (hosted.cancelled || std::chrono::steady_clock::now() > deadline) return std::move(link).error();
    Log(LogLevel::kInfo, "stages",
        hosted.Name() + " does not reach stage " + std::to_string(to) + " yet: " + link.error().message);
    std::this_thread::sleep_for(kLinkRetry);
  }
}

Status StageHost::LinkNow(const std::shared_ptr<HostedStage>& hosted) {
  UseProcessCpus();  // and so do threads that are made here
  const auto last = static_cast<std::int32_t>(hosted->placement.stages.size()) - 1;
  std::unique_ptr<FrameSender> next;
  if (hosted->index < last) { SHOAL_ASSIGN_OR_RETURN(next, OpenPipe(*hosted, hosted->index + 1, PipeKind::kInput)); }
  return hosted->index == 0 ? StartHead(hosted, std::move(next)) : StartWorker(*hosted, std::move(next));
}

Status StageHost::StartWorker(HostedStage& hosted, std::unique_ptr<FrameSender> next) {
  const PlacementRecord& placement = hosted.placement;
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<FrameSender> results, OpenPipe(hosted, 0, PipeKind::kResults));
  const NodeId& previous = placement.stages[static_cast<std::size_t>(hosted.index) - 1].node;
  SHOAL_ASSIGN_OR_RETURN(
      std::unique_ptr<FrameReceiver> input,
      pipes_.Take(previous, placement.epoch, {PipeKind::kInput, hosted.index - 1, hosted.index}, kLinkMax));
  const PlacementOptions placed = OptionsOf(placement);
  const StageWorkerOptions options{hosted.index, placement.epoch, placed.wire_type,
                                   SentBytes(placed, hosted.model->info, hosted.layers())};
  auto worker = std::make_unique<StageWorker>(std::move(hosted.stage), options, std::move(input), std::move(next),
                                              std::move(results));
  worker->Start();
  const std::lock_guard lock(hosted.mutex);
  hosted.worker = std::move(worker);
  hosted.worker->SetRest(rest_);
  hosted.TellWhoCopies();
  return {};
}

Status StageHost::StartHead(const std::shared_ptr<HostedStage>& shared, std::unique_ptr<FrameSender> next) {
  HostedStage& hosted = *shared;
  const PlacementRecord& placement = hosted.placement;
  std::vector<std::unique_ptr<FrameReceiver>> results;
  for (std::size_t i = 1; i < placement.stages.size(); ++i) {
    const PipeHello hello{PipeKind::kResults, static_cast<StageIndex>(i), 0};
    SHOAL_ASSIGN_OR_RETURN(results.emplace_back(),
                           pipes_.Take(placement.stages[i].node, placement.epoch, hello, kLinkMax));
  }
  const PlacementOptions options = OptionsOf(placement);
  HeadOptions head_options;
  std::vector<LayerRange> stages;
  for (const StagePlace& stage : placement.stages) stages.push_back(stage.layers);
  head_options.schedule = MakeScheduleOptions(options, *hosted.model, stages, InFlightMax(stages.size()));
  const bool elsewhere = std::any_of(placement.stages.begin(), placement.stages.end(),
                                     [&](const StagePlace& stage) { return stage.node != options_.self; });
  // Other hosts than this one would have nothing to do meanwhile.
  if (options_.drafts && elsewhere) head_options.schedule.drafts_max = DraftsMax(head_options.schedule);
  head_options.epoch = placement.epoch;
  head_options.wire_type = options.wire_type;
  head_options.sent_bytes_max = SentBytes(options, hosted.model->info, placement.stages.front().layers);
  head_options.context_tokens = ContextTokens(options, hosted.model->info);
  head_options.n_vocab = hosted.model->info.n_vocab;
  // Then its core would do nothing while the others compute: that is when to format answers.
  head_options.holds_events = elsewhere && hosted.stage->engine().options().threads >= AllowedCpuCount();
  // The head does not outlive what hosts it for long, and must not own it.
  head_options.on_broken = [this, weak = std::weak_ptr<HostedStage>(shared)](const std::string& why) {
    if (const std::shared_ptr<HostedStage> broken = weak.lock()) ReportBroken(broken, why);
  };
  std::shared_ptr<Head> head =
      Head::Start(std::move(head_options), std::move(hosted.stage), std::move(next), std::move(results));
  const std::lock_guard lock(mutex_);
  const std::lock_guard hosted_lock(hosted.mutex);
  hosted.head = std::move(head);
  hosted.head->SetRest(rest_);
  hosted.head->SetDraftChance(DraftChance(hosted.placement));
  hosted.TellWhoCopies();
  hosted.changed.notify_all();
  return {};
}

Result<std::unique_ptr<GenerationHandle>> StageHost::Generate(const std::string& model, Epoch epoch,
                                                              GenerateOptions options) {
  const std::shared_ptr<HostedStage> hosted = Find(model, epoch, 0);
  if (hosted == nullptr) { return Error{ErrorCode::kStale, "the head of this placement is not here (any more)"}; }
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
  std::map<std::string, std::shared_ptr<HostedStage>> heads;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, one] : hosted_) {
      if (one->index == 0) heads[one->placement.model] = one;  // the newest epoch comes last
    }
  }
  std::map<std::string, std::vector<StageTotals>> totals;
  for (const auto& [model, one] : heads) {
    std::shared_ptr<Head> head;
    {
      const std::lock_guard lock(one->mutex);
      head = one->head;
    }
    if (head != nullptr) totals[model] = head->Totals();
  }
  return totals;
}

std::vector<StageHost::Work> StageHost::Works() {
  std::vector<Work> works;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, hosted] : hosted_) {
    const std::lock_guard hosted_lock(hosted->mutex);
    if (hosted->head) {
      works.push_back({hosted->placement, hosted->index, hosted->head->worker_stats(), hosted->head->speeds()});
    }
    if (hosted->worker) works.push_back({hosted->placement, hosted->index, hosted->worker->stats(), {}});
  }
  return works;
}

HeadCounts StageHost::Counts() {
  std::vector<std::shared_ptr<Head>> heads;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, hosted] : hosted_) {
      const std::lock_guard hosted_lock(hosted->mutex);
      if (hosted->head) heads.push_back(hosted->head);
    }
  }
  HeadCounts counts;
  for (const std::shared_ptr<Head>& head : heads) counts += CountsOf(head->stats());
  const std::lock_guard lock(ended_->mutex);
  counts += ended_->counts;
  return counts;
}

void StageHost::Unload(const std::string& model, Epoch epoch, std::int32_t index) {
  std::shared_ptr<HostedStage> hosted;
  {
    const std::lock_guard lock(mutex_);
    const auto node = hosted_.extract({model, epoch, index});
    if (node.empty()) return;
    hosted = node.mapped();
  }
  pipes_.CloseEpoch(epoch);
  EndSoon(hosted);
}

}  // namespace shoal
