// Random requests.
#include "sim/clients.h"

namespace shoal::sim {
namespace {

constexpr int kBeginnings = 3;
constexpr std::uint64_t kBeginningMax = 100, kOwnMax = 30, kAnswerMax = 40;
constexpr DurationUs kGapMaxUs = 4 * kSecond, kPatienceMaxUs = 10 * kSecond;
constexpr std::uint64_t kCancelEvery = 15;

}  // namespace

Clients::Clients(Network& network, Checks& checks, std::vector<std::unique_ptr<SimNode>>& nodes,
                 const std::vector<FakeModel>& models)
    : network_(network), checks_(checks), nodes_(nodes), models_(models) {
  for (int i = 0; i < kBeginnings; ++i) {
    std::vector<TokenId>& tokens = beginnings_.emplace_back();
    for (std::uint64_t n = network_.rng().Below(kBeginningMax); n > 0; --n) {
      tokens.push_back(static_cast<TokenId>(network_.rng().Below(1000)));
    }
  }
}

void Clients::Start() {
  asking_ = true;
  Next();
}

void Clients::Next() {
  if (!asking_) return;
  Rng& rng = network_.rng();
  const auto node = static_cast<int>(rng.Below(nodes_.size()));
  const FakeModel& model = models_[rng.Below(models_.size())];
  if (nodes_[static_cast<std::size_t>(node)]->up()) (void)Begin(node, model);
  network_.After(static_cast<DurationUs>(rng.Below(kGapMaxUs)), [this] { Next(); });
}

const Ask& Clients::Begin(int node, const FakeModel& model) {
  Rng& rng = network_.rng();
  asks_.push_back(std::make_unique<Ask>());
  Ask& ask = *asks_.back();
  ask.id = asks_.size();
  ask.node = node;
  ask.model = model.name;
  ask.prompt = beginnings_[rng.Below(kBeginnings)];
  for (std::uint64_t n = 1 + rng.Below(kOwnMax); n > 0; --n) {
    ask.prompt.push_back(static_cast<TokenId>(rng.Below(static_cast<std::uint64_t>(model.vocabulary))));
  }
  ask.seed = rng.Next();
  ask.tokens_max = 1 + static_cast<std::int32_t>(rng.Below(kAnswerMax));
  ask.context_tokens_max = model.context_tokens;
  ask.expected = RunOnOneNode(model, ask.prompt, ask.seed, ask.tokens_max);
  if (asking_ && rng.Below(kCancelEvery) == 0) {
    network_.Post(node, static_cast<DurationUs>(rng.Below(kPatienceMaxUs)),
                  [this, &ask] { nodes_[static_cast<std::size_t>(ask.node)]->entry().Cancel(ask); });
  }
  nodes_[static_cast<std::size_t>(node)]->entry().Begin(ask);
  return ask;
}

void Clients::OnCrash(int node) {
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (ask->node != node || ask->ended) continue;
    ask->ended = true;
    ask->error = "its node is gone";
  }
}

const Ask* Clients::FirstUnended() const {
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (!ask->ended) return ask.get();
  }
  return nullptr;
}

std::uint64_t Clients::complete() const {
  std::uint64_t count = 0;
  for (const std::unique_ptr<Ask>& ask : asks_) count += ask->complete ? 1 : 0;
  return count;
}

std::map<std::string, std::uint64_t> Clients::errors() const {
  std::map<std::string, std::uint64_t> count;
  for (const std::unique_ptr<Ask>& ask : asks_) {
    if (!ask->error.empty()) ++count[ask->error];
  }
  return count;
}

std::uint64_t Clients::tokens() const {
  std::uint64_t count = 0;
  for (const std::unique_ptr<Ask>& ask : asks_) count += ask->delivered.size();
  return count;
}

}  // namespace shoal::sim
