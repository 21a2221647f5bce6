// Vocabulary and template from this node's own file; tokens from the head.
#include "node/cluster_backend.h"

#include <chrono>
#include <utility>

#include "node/stage_plan.h"

namespace shoal {
namespace {

// How long a generation waits for the placement that follows one that broke.
constexpr std::chrono::seconds kLostMax{60};

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
                                                    const PlacementRecord& placement, StartAtHead start,
                                                    Counter& resumed) {
  SHOAL_ASSIGN_OR_RETURN(const LibraryModel model, library.FindFingerprint(placement.request.fingerprint));
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Vocabulary> vocabulary, library.OpenVocabulary(model));
  Result<std::shared_ptr<const ChatTemplate>> chat = ChatTemplate::Open(vocabulary, "");
  if (!chat.ok() && chat.error().code != ErrorCode::kUnsupported) return std::move(chat).error();
  PlacementOptions options;
  options.context_tokens = placement.request.options.context_tokens;
  const auto target = std::make_shared<const ResumeTarget>(
      ResumeTarget{{placement.model, FileTimeS(model.file->path), ContextTokens(options, model.file->info)},
                   placements,
                   std::move(start),
                   resumed,
                   kLostMax});
  return std::shared_ptr<Backend>(
      std::make_shared<ClusterBackend>(target, std::move(vocabulary), chat.ok() ? *chat : nullptr));
}

}  // namespace shoal
