// The acts of a history: nodes meet, faults, peace, the last questions.
#include "sim/history.h"

#include <functional>
#include <memory>
#include <vector>

#include "sim/clients.h"
#include "sim/faults.h"
#include "sim/network.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kAgreeWithin = 120 * kSecond, kAgreeFor = 10 * kSecond;
constexpr DurationUs kAsksEndWithin = 60 * kSecond;
constexpr DurationUs kWishesEndWithin = 300 * kSecond;  // ClusterOptions::request_max_us, and a little
constexpr DurationUs kAnswersWithin = 60 * kSecond;
constexpr DurationUs kStep = 250 * kMillisecond;
constexpr int kNodesMin = 2, kNodesMax = 12;

int NodesOf(const HistoryOptions& options) {
  if (options.nodes > 0) return options.nodes;
  return kNodesMin + static_cast<int>(Rng(options.seed ^ 0x51D).Below(kNodesMax - kNodesMin + 1));
}

class History {
 public:
  explicit History(const HistoryOptions& options)
      : options_(options), network_(NodesOf(options), options.seed), models_(MakeModels()) {
    for (int node = 0; node < network_.nodes(); ++node) {
      nodes_.push_back(std::make_unique<SimNode>(network_, checks_, node, models_, options.rules));
    }
    for (const FakeModel& model : models_) {
      const auto sure = network_.rng().Below(nodes_.size());
      for (std::size_t node = 0; node < nodes_.size(); ++node) {
        if (node == sure || network_.rng().Below(5) != 0) nodes_[node]->Hold(model);
      }
    }
    if (network_.rng().Below(2) == 0) MakeTight();
    clients_ = std::make_unique<Clients>(network_, checks_, nodes_, models_);
    faults_ = std::make_unique<Faults>(network_, nodes_, models_, *clients_);
  }

  HistoryResult Play() {
    Begin();
    Disturb();
    if (!checks_.violated()) Settle();
    if (!checks_.violated()) AskEverywhere();
    return Result();
  }

 private:
  std::vector<FakeModel> MakeModels() {
    std::vector<FakeModel> models;
    const std::uint64_t count = 1 + network_.rng().Below(2);
    for (std::uint64_t i = 0; i < count; ++i) {
      FakeModel model;
      model.name = i == 0 ? "m" : "k";
      model.fingerprint = 77 + i;
      model.layers = 4 + static_cast<std::int32_t>(network_.rng().Below(9));
      // Texts of few tokens repeat themselves: then what comes next is guessed, right and wrong.
      if (model.layers % 2 == 0) model.vocabulary = 3;
      model.break_drafts = options_.break_drafts;
      models.push_back(model);
    }
    return models;
  }

  // Little more memory than the models need on the fewest nodes that stay: who has room matters, and copies give way.
  void MakeTight() {
    std::uint64_t layers = 0;
    for (const FakeModel& model : models_) layers += static_cast<std::uint64_t>(model.layers);
    const std::uint64_t nodes = std::min<std::uint64_t>(nodes_.size(), kStayingMin);
    for (const auto& node : nodes_) {
      const std::uint64_t its = layers / nodes + 1 + network_.rng().Below(4);
      node->SetMemory(kLayerBytes * its + kLayerBytes / 2);
    }
  }

  SimNode& at(int node) { return *nodes_[static_cast<std::size_t>(node)]; }

  bool Until(const std::function<bool()>& check, DurationUs limit) {
    for (const TimeUs end = network_.now() + limit; !checks_.violated();) {
      if (check()) return true;
      if (network_.now() >= end) return false;
      network_.RunUntil(network_.now() + kStep);
    }
    return true;  // what was violated is told already
  }

  void Begin() {
    for (int node = 0; node < network_.nodes(); ++node) {
      network_.After(static_cast<DurationUs>(network_.rng().Below(2 * kSecond)), [this, node] { at(node).Start(); });
    }
    network_.RunUntil(5 * kSecond);
    for (const FakeModel& model : models_) (void)faults_->Place(0, model.name, 0);
    network_.RunUntil(10 * kSecond);
    clients_->Start();
  }

  void Disturb() {
    const TimeUs start = network_.now();
    if (!options_.calm) faults_->Start();
    Until([&] { return network_.now() - start >= options_.minutes * 60 * kSecond; }, options_.minutes * 60 * kSecond);
    clients_->Stop();
    faults_->Stop();
    result_.faults_us = network_.now() - start;
  }

  // Agreement that lasts: what is still on its way could end one that was there by chance.
  bool Agree() {
    const TimeUs start = network_.now();
    TimeUs since = start;
    std::string why;
    const bool agreed = Until(
        [&] {
          const std::string unsettled = Unsettled();
          if (!unsettled.empty()) {
            since = network_.now();
            why = unsettled;
          }
          return network_.now() - since >= kAgreeFor;
        },
        kAgreeWithin + kAgreeFor);
    if (!agreed) checks_.Violate(Invariant::kAgreement, why);
    result_.agreed_us = std::max(result_.agreed_us, since - start);
    return !checks_.violated();
  }

  void Settle() {
    if (!Agree()) return;
    if (!Until([&] { return clients_->FirstUnended() == nullptr; }, kAsksEndWithin)) {
      const Ask& ask = *clients_->FirstUnended();
      return checks_.Violate(Invariant::kEveryAskEnds, "generation " + std::to_string(ask.id) + " of node " +
                                                           std::to_string(ask.node) + " hangs after " +
                                                           std::to_string(ask.delivered.size()) +
                                                           " tokens: " + clients_->Describe(ask) + HostsText());
    }
    if (!Until([&] { return faults_->UnansweredWish().empty(); }, kWishesEndWithin)) {
      checks_.Violate(Invariant::kEveryWishEnds, faults_->UnansweredWish() + " was never answered");
    }
  }

  std::string HostsText() {
    std::string text;
    for (int node = 0; node < network_.nodes(); ++node) {
      if (network_.running(node)) text += "\n  node " + std::to_string(node) + ":" + at(node).host().Describe();
    }
    return text;
  }

  void AskEverywhere() {
    for (const FakeModel& model : models_) {
      int someone = -1;
      for (int node = 0; node < network_.nodes(); ++node) {
        if (network_.running(node) && at(node).holds(model.name)) someone = node;
      }
      if (someone < 0) continue;  // its files have left
      if (!at(someone).cluster().placement(model.name)) {
        const std::uint64_t wish = faults_->Place(someone, model.name, 0);
        const auto& answered = at(someone).answered();
        (void)Until([&] { return answered.contains(wish); }, kAnswersWithin);
        const Status placed = answered.contains(wish) ? answered.at(wish) : Error{ErrorCode::kInternal, "no answer"};
        if (!placed.ok()) {
          return checks_.Violate(Invariant::kAnswersAfterFaults,
                                 "'" + model.name + "' cannot be placed in peace: " + placed.error().message);
        }
        if (!Agree()) return;
      }
      std::vector<const Ask*> asked;
      for (int node = 0; node < network_.nodes(); ++node) {
        if (network_.running(node)) asked.push_back(&clients_->Begin(node, model));
      }
      (void)Until([&] { return clients_->FirstUnended() == nullptr; }, kAnswersWithin);
      for (const Ask* ask : asked) {
        if (ask->complete) continue;
        const std::string why = ask->ended ? "'" + ask->error + "'" : "nothing for 60 s";
        checks_.Violate(Invariant::kAnswersAfterFaults,
                        "node " + std::to_string(ask->node) + " asked '" + ask->model + "' and got " + why);
      }
    }
  }

  // What is not yet as it should be; empty when all is.
  std::string Unsettled() {
    std::vector<int> here;
    for (int node = 0; node < network_.nodes(); ++node) {
      if (network_.running(node)) here.push_back(node);
    }
    for (const int a : here) {
      const std::string name = "node " + std::to_string(a);
      const Cluster& cluster = at(a).cluster();
      if (cluster.digest() != at(here.front()).cluster().digest()) return "digests differ";
      std::size_t alive = 0;
      for (const MemberView& member : cluster.members()) {
        if (!network_.running(NumberOf(member.record.id))) {
          if (member.state == MemberState::kAlive || member.state == MemberState::kSuspect)
            return name + " sees a ghost";
        } else if (member.state != MemberState::kAlive) {
          return name + " has " + member.record.facts.name + " as " + std::string(MemberStateName(member.state));
        } else {
          ++alive;
        }
      }
      if (alive != here.size()) return name + " does not know everybody";
      std::size_t stages = 0;
      for (const PlacementView& placed : cluster.placements()) {
        bool held = false;
        for (const int b : here) held = held || at(b).holds(placed.record.model);
        if (placed.broken && held) return name + " has a broken placement: " + placed.reason;
        // One that started anew has lost those of a model that nobody has a file of any more.
        for (const StagePlace& stage : placed.record.stages) {
          stages += stage.node == NodeIdOf(a) && stage.boot == at(a).boot() ? 1 : 0;
        }
      }
      if (at(a).host().bytes_loaded() > at(a).memory()) return name + " has more loaded than it has memory for";
      const std::size_t loaded = at(a).host().loaded();
      if (loaded != stages)
        return name + " has " + std::to_string(loaded) + " stages loaded, not " + std::to_string(stages);
    }
    return {};
  }

  HistoryResult Result() {
    result_.violated = checks_.violated();
    result_.invariant = checks_.invariant();
    result_.what = checks_.what();
    result_.nodes = network_.nodes();
    result_.trace = network_.trace();
    result_.events = network_.events();
    result_.virtual_us = network_.now();
    result_.faults = faults_->count();
    result_.overlapping = faults_->overlapping();
    result_.asked = clients_->asked();
    result_.complete = clients_->complete();
    result_.tokens = clients_->tokens();
    result_.errors = clients_->errors();
    result_.coming_back = clients_->coming_back();
    result_.placements = checks_.placements();
    result_.recovery = checks_.recovery;
    result_.drafts = checks_.drafts;
    for (const auto& node : nodes_) {
      result_.control_bytes += node->control_bytes();
      result_.node_us += node->running_us();
      result_.resumed += node->resumed();
    }
    return result_;
  }

  const HistoryOptions options_;
  Network network_;
  Checks checks_;
  const std::vector<FakeModel> models_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::unique_ptr<Clients> clients_;
  std::unique_ptr<Faults> faults_;
  HistoryResult result_;
};

}  // namespace

HistoryResult PlayHistory(const HistoryOptions& options) { return History(options).Play(); }

}  // namespace shoal::sim
