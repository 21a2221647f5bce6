// Vocabulary and template from this node's own file; tokens from the head.
#include "node/cluster_backend.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "node/stage_plan.h"

namespace shoal {
namespace {

// How long a generation waits for the placement that follows one that broke.
constexpr std::chrono::seconds kLostMax{60};
constexpr std::chrono::milliseconds kGiveUpPause{50};  // between looks whether who waits has given up

class ClusterBackend final : public Backend {
 public:
  ClusterBackend(std::shared_ptr<const ResumeTarget> target, std::shared_ptr<const Vocabulary> vocabulary,
                 std::shared_ptr<const ChatTemplate> chat_template)
      : target_(std::move(target)), vocabulary_(std::move(vocabulary)), chat_template_(std::move(chat_template)) {}

  ModelCard model() const override { return target_->card; }
  const Vocabulary& vocabulary() const override { return *vocabulary_; }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return vocabulary_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return chat_template_; }

  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) override {
    return StartResuming(target_, std::move(options));
  }

 private:
  const std::shared_ptr<const ResumeTarget> target_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  const std::shared_ptr<const ChatTemplate> chat_template_;
};

}  // namespace

void PlacementTable::Set(std::vector<PlacementView> placements, bool alone) {
  const std::lock_guard lock(mutex_);
  std::map<std::string, Known> by_model;
  for (PlacementView& placement : placements) {
    Known known{std::move(placement)};
    const auto before = by_model_.find(known.view.record.model);
    if (known.view.hopeless) known.hopeless_since = Clock::now();
    if (known.view.hopeless && before != by_model_.end()) {
      known.hopeless_since = std::min(known.hopeless_since, before->second.hopeless_since);
    }
    std::string model = known.view.record.model;
    by_model.emplace(std::move(model), std::move(known));
  }
  by_model_ = std::move(by_model);
  alone_ = alone;
  ++changes_;
  changed_.notify_all();
}

PlacementView PlacementTable::Shown(const Known& known) const {
  PlacementView view = known.view;
  view.hopeless = view.hopeless && Clock::now() - known.hopeless_since >= (alone_ ? kAloneWait : kHopelessWait);
  return view;
}

std::optional<PlacementView> PlacementTable::Find(const std::string& model) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_model_.find(model);
  return found == by_model_.end() ? std::nullopt : std::optional(Shown(found->second));
}

std::vector<PlacementView> PlacementTable::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<PlacementView> placements;
  for (const auto& [model, known] : by_model_) placements.push_back(Shown(known));
  return placements;
}

bool PlacementTable::IsSuperseded(const std::string& model, Epoch epoch) const {
  const std::optional<PlacementView> placement = Find(model);
  return placement && placement->record.epoch != epoch && !placement->broken;
}

std::uint64_t PlacementTable::WaitForChange(std::uint64_t seen, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return changes_ > seen; });
  return changes_;
}

void BackendTable::DropUnplaced(const std::vector<PlacementView>& placed) {
  std::erase_if(backends_, [&](const auto& kept) {
    const auto is_it = [&](const PlacementView& placement) { return placement.record.model == kept.first; };
    return !kept.second->opening && std::none_of(placed.begin(), placed.end(), is_it);
  });
}

std::shared_ptr<Backend> BackendTable::Find(const std::string& name, const PlacementTable& placements,
                                            const OpenBackend& open, const std::function<bool()>& given_up) {
  std::unique_lock lock(mutex_);
  const std::vector<PlacementView> placed = placements.all();
  DropUnplaced(placed);
  for (const PlacementView& placement : placed) {
    const std::string& model = placement.record.model;
    if (!IsServedModel({model, 0, 0}, name)) continue;
    std::shared_ptr<Entry>& kept = backends_[model];
    if (kept == nullptr) kept = std::make_shared<Entry>();
    const std::shared_ptr<Entry> entry = kept;  // dropped meanwhile, it is still this thread's
    while (entry->opening && !given_up()) opened_.wait_for(lock, kGiveUpPause);
    if (entry->opening) continue;
    const std::uint64_t fingerprint = placement.record.request.fingerprint;
    const PlaceOptions& options = placement.record.request.options;
    if (entry->backend != nullptr && entry->fingerprint == fingerprint && entry->options == options)
      return entry->backend;
    entry->opening = true;
    lock.unlock();
    Result<std::shared_ptr<Backend>> opened = open(placement.record);
    lock.lock();
    entry->opening = false;
    opened_.notify_all();
    if (opened.ok()) {
      entry->fingerprint = fingerprint;
      entry->options = options;
      entry->backend = *std::move(opened);
      not_served_.erase(model);
      return entry->backend;
    }
    if (opened.error().code != ErrorCode::kCancelled && not_served_.insert(model).second) {
      Log(LogLevel::kWarning, "models", "'" + model + "' cannot be served here: " + opened.error().message);
    }
  }
  return nullptr;
}

Result<std::shared_ptr<Backend>> OpenClusterBackend(ModelLibrary& library, const LibraryModel& model,
                                                    const PlacementTable& placements, const PlacementRecord& placement,
                                                    StartAtHead start, Counter& resumed) {
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Vocabulary> vocabulary, library.OpenVocabulary(model));
  Result<std::shared_ptr<const ChatTemplate>> chat = ChatTemplate::Open(vocabulary, "");
  if (!chat.ok() && chat.error().code != ErrorCode::kUnsupported) return std::move(chat).error();
  PlacementOptions options;
  options.context_tokens = placement.request.options.context_tokens;
  const std::int32_t generations_max = placement.request.options.slots + placement.request.options.queue_max;
  const auto target = std::make_shared<const ResumeTarget>(ResumeTarget{
      {placement.model, FileTimeS(model.file->path), ContextTokens(options, model.file->info), generations_max},
      placements,
      std::move(start),
      resumed,
      kLostMax});
  return std::shared_ptr<Backend>(
      std::make_shared<ClusterBackend>(target, std::move(vocabulary), chat.ok() ? *chat : nullptr));
}

}  // namespace shoal
