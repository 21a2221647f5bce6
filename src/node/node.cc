// Opens model and placement, and beside its weights vocabulary and chat template; closes them in the other order.
#include "node/node.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "node/generate.h"
#include "node/model_library.h"
#include "node/stage_metrics.h"
#include "runtime/ask_loop.h"

namespace shoal {
namespace {

class LocalNode final : public Node, public std::enable_shared_from_this<LocalNode> {
 public:
  explicit LocalNode(std::shared_ptr<const ModelFile> model) : model_(std::move(model)) {}

  ~LocalNode() override { Stop(); }
  LocalNode(const LocalNode&) = delete;
  LocalNode& operator=(const LocalNode&) = delete;

  Status Place(const NodeOptions& options) {
    const auto words = [&] { return OpenVocabulary(options.chat_template); };
    SHOAL_ASSIGN_OR_RETURN(placement_, Placement::Open(loop_, model_, words, options.placement));
    target_ = std::make_unique<GenerateTarget>(
        GenerateTarget{loop_, placement_->pipeline(), placement_->context_tokens(), vocabulary_->size()});
    generations_max_ = options.placement.slots + options.placement.queue_max;
    return {};
  }

  void Stop() override {
    std::call_once(stopped_, [this] {
      stopping_ = true;
      if (placement_ != nullptr) placement_->Stop();
      loop_.Stop();
    });
  }

  ModelCard model() const override {
    return {ModelNameOf(model_->path), FileTimeS(model_->path), placement_->context_tokens(), generations_max_};
  }
  const Vocabulary& vocabulary() const override { return *vocabulary_; }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return vocabulary_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return chat_template_; }

  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions options) override {
    if (stopping_) return Error{ErrorCode::kUnavailable, "this node is stopping"};
    const std::shared_ptr<const GenerateTarget> target(shared_from_this(), target_.get());
    return StartGeneration(target, next_id_.fetch_add(1), std::move(options));
  }

  std::vector<ModelCard> models() override { return {model()}; }
  std::shared_ptr<Backend> Find(const std::string& name) override {
    return IsServedModel(model(), name) ? shared_from_this() : nullptr;
  }
  bool healthy() const override { return !stopping_ && !placement_->broken(); }
  MetricsRegistry& metrics() override { return metrics_; }
  void RefreshMetrics() override;

  const ModelInfo& model_info() const override { return model_->info; }
  std::vector<StageReport> Report() const override { return placement_->Report(); }

  ScheduleStats Stats() override {
    return AskLoop(loop_, [this] { return placement_->pipeline().stats(); }).value_or(ScheduleStats{});
  }

 private:
  // And the chat template, the model's own unless another is named.
  Result<std::shared_ptr<const Vocabulary>> OpenVocabulary(const std::string& chat_template) {
    SHOAL_ASSIGN_OR_RETURN(vocabulary_, Vocabulary::Open(model_));
    Result<std::shared_ptr<const ChatTemplate>> chat = ChatTemplate::Open(vocabulary_, chat_template);
    if (chat.ok()) {
      chat_template_ = *std::move(chat);
    } else if (!chat_template.empty() || chat.error().code != ErrorCode::kUnsupported) {
      return std::move(chat).error();
    } else {
      Log(LogLevel::kInfo, "node", chat.error().message);
    }
    return vocabulary_;
  }

  const std::shared_ptr<const ModelFile> model_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::shared_ptr<const ChatTemplate> chat_template_;
  MetricsRegistry metrics_;
  RealLoop loop_;
  std::unique_ptr<Placement> placement_;
  std::int32_t generations_max_ = 0;
  std::unique_ptr<const GenerateTarget> target_;
  std::atomic<GenerationId> next_id_{1};
  std::atomic<bool> stopping_{false};
  std::once_flag stopped_;
};

void LocalNode::RefreshMetrics() {
  const ScheduleStats stats = Stats();
  const auto set = [this](const char* name, const char* help, double value) {
    metrics_.GetGauge(name, help).Set(value);
  };
  set("shoal_requests_waiting", "Generations that wait for a slot.", stats.waiting);
  set("shoal_requests_running", "Generations that hold a slot.", stats.running);
  set("shoal_slots_free", "Slots without a generation.", stats.slots_free);
  set("shoal_micro_batches_in_flight", "Micro-batches between head and last stage.", stats.in_flight);
  set("shoal_kv_tokens_used", "KV cells that hold a token.", static_cast<double>(stats.kv_tokens_used));
  set("shoal_kv_tokens_max", "KV cells in all.", placement_->context_tokens());
  set("shoal_prompt_tokens_computed", "Prompt tokens prefilled since start.",
      static_cast<double>(stats.tokens_prefilled));
  set("shoal_prompt_tokens_reused", "Prompt tokens found in the cache since start.",
      static_cast<double>(stats.tokens_reused));
  set("shoal_tokens_decoded", "Tokens emitted since start.", static_cast<double>(stats.tokens_decoded));
  set("shoal_preemptions", "Generations set back for want of KV cells since start.",
      static_cast<double>(stats.preemptions));
  const std::vector<StageReport> reports = Report();
  std::vector<StageTotals> totals;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const StageWorkerStats& s = reports[i].stats;
    totals.push_back({s.batches, s.compute_us, s.wait_us, s.wire_us});
    metrics_
        .GetGauge("shoal_stage_memory_bytes", "Weights, KV cache and compute buffers of a stage.",
                  "stage=\"" + std::to_string(i) + "\"")
        .Set(static_cast<double>(reports[i].memory.total()));
  }
  SetStageMetrics(metrics_, {{"", totals}});
}

}  // namespace

Result<std::shared_ptr<Node>> Node::Open(const NodeOptions& options) {
  std::shared_ptr<const ModelFile> model = options.model;
  if (model == nullptr) { SHOAL_ASSIGN_OR_RETURN(model, OpenModelFile(options.model_path)); }
  auto node = std::make_shared<LocalNode>(std::move(model));
  SHOAL_RETURN_IF_ERROR(node->Place(options));
  return std::shared_ptr<Node>(std::move(node));
}

}  // namespace shoal
