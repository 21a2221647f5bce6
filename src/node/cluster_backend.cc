// Vocabulary and template from this node's own file; tokens from the head.
#include "node/cluster_backend.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "node/stage_plan.h"

namespace shoal {
namespace {

// How long a request waits for a placement that is being replaced.
constexpr std::chrono::seconds kMovedMax{30};
constexpr std::chrono::milliseconds kMovedPoll{100};

class ClusterBackend final : public Backend {
 public:
  ClusterBackend(ModelCard card, std::shared_ptr<const Vocabulary> vocabulary,
                 std::shared_ptr<const ChatTemplate> chat_template, const PlacementTable& placements, StartAtHead start)
      : card_(std::move(card)),
        vocabulary_(std::move(vocabulary)),
        chat_template_(std::move(chat_template)),
        placements_(placements),
        start_(std::move(start)) {}

  ModelCard model() const override { return card_; }
  const Vocabulary& vocabulary() const override { return *vocabulary_; }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return vocabulary_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return chat_template_; }

  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) override {
    const auto deadline = std::chrono::steady_clock::now() + kMovedMax;
    Error last{ErrorCode::kUnavailable, "'" + card_.id + "' is not placed any more"};
    while (std::optional<PlacementView> placement = placements_.Find(card_.id)) {
      if (placement->broken) {
        last = {ErrorCode::kUnavailable, "'" + card_.id + "' cannot run now: " + placement->reason};
      } else {
        Result<std::unique_ptr<GenerationHandle>> handle = start_(placement->record, options);
        if (handle.ok()) return handle;
        last = std::move(handle).error();
        if (last.code != ErrorCode::kStale && last.code != ErrorCode::kUnavailable) return last;
      }
      if (std::chrono::steady_clock::now() > deadline) break;
      std::this_thread::sleep_for(kMovedPoll);
    }
    if (last.code == ErrorCode::kStale) last.code = ErrorCode::kUnavailable;
    return last;
  }

 private:
  const ModelCard card_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  const std::shared_ptr<const ChatTemplate> chat_template_;
  const PlacementTable& placements_;
  const StartAtHead start_;
};

}  // namespace

void PlacementTable::Set(std::vector<PlacementView> placements) {
  const std::lock_guard lock(mutex_);
  by_model_.clear();
  for (PlacementView& placement : placements) {
    std::string model = placement.record.model;
    by_model_.emplace(std::move(model), std::move(placement));
  }
}

std::optional<PlacementView> PlacementTable::Find(const std::string& model) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_model_.find(model);
  return found == by_model_.end() ? std::nullopt : std::optional<PlacementView>(found->second);
}

std::vector<PlacementView> PlacementTable::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<PlacementView> placements;
  for (const auto& [model, placement] : by_model_) placements.push_back(placement);
  return placements;
}

Result<std::shared_ptr<Backend>> OpenClusterBackend(ModelLibrary& library, const PlacementTable& placements,
                                                    const PlacementRecord& placement, StartAtHead start) {
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library.FindFingerprint(placement.request.fingerprint));
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Vocabulary> vocabulary, library.OpenVocabulary(model));
  Result<std::shared_ptr<const ChatTemplate>> chat = ChatTemplate::Open(vocabulary, "");
  if (!chat.ok() && chat.error().code != ErrorCode::kUnsupported) return std::move(chat).error();
  PlacementOptions options;
  options.context_tokens = placement.request.options.context_tokens;
  const ModelCard card{placement.model, FileTimeS(model.file->path), ContextTokens(options, model.file->info)};
  return std::shared_ptr<Backend>(std::make_shared<ClusterBackend>(
      card, std::move(vocabulary), chat.ok() ? *chat : nullptr, placements, std::move(start)));
}

}  // namespace shoal
