// Several Clusters over links in memory, in virtual time: for the tests of this folder.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cluster/cluster.h"

namespace shoal {

inline constexpr DurationUs kSecond = 1'000'000;

inline NodeId TestId(int number) {
  NodeId id;
  id.bytes.fill(static_cast<std::uint8_t>(number + 1));
  return id;
}

inline ModelHolding TestHolding(std::int32_t layers) {
  ModelHolding holding;
  holding.name = "m";
  holding.fingerprint = 77;
  holding.file_bytes = 1000;
  holding.shape.layer_bytes.assign(static_cast<std::size_t>(layers), 100);
  holding.shape.kv_bytes.assign(static_cast<std::size_t>(layers), 0);
  holding.held = {{{0, layers}}, true, true, true, 1000};
  for (std::int32_t cut = 1; cut < layers; ++cut) holding.shape.cuts.push_back(cut);
  return holding;
}

// Every message goes through the encoder and the decoder. Links come up when a Cluster asks for them.
class Pump {
 public:
  struct Node {
    std::unique_ptr<Cluster> cluster;
    ClusterOptions options;
    bool running = true, frozen = false;
    std::set<std::tuple<std::string, Epoch, std::int32_t>> loaded, active;
    std::set<std::tuple<std::string, std::int32_t, std::int32_t>> copies;
    int loads = 0;  // from the disk, copies not counted
    std::map<std::uint64_t, RequestDone> done;
    std::vector<std::string> left, notes;
    std::vector<Epoch> activated;
    std::vector<PlacementView> told;  // as of its last word that something changed
  };

  int Add(std::function<void(ClusterOptions&)> change = {}) {
    const int number = static_cast<int>(nodes.size());
    ClusterOptions options;
    options.self = TestId(number);
    options.seed = 100 + static_cast<std::uint64_t>(number);
    options.facts.name = "n" + std::to_string(number);
    options.facts.device.memory_budget_bytes = 1'000'000;
    options.facts.device.cores = 1;
    options.facts.models = {TestHolding(6)};
    options.verify_revocation = [](std::span<const std::uint8_t> bytes) -> std::optional<NodeId> {
      if (bytes.size() != 1 || bytes[0] > 200) return std::nullopt;
      return TestId(bytes[0]);
    };
    if (change) change(options);
    Node node;
    node.options = options;
    node.cluster = std::make_unique<Cluster>(options, now);
    nodes.push_back(std::move(node));
    return number;
  }

  // A member of a cluster that knows nobody else yet: discovery brings the first link.
  void Meet(int a, int b) {
    if (deaf.contains({a, b}) || deaf.contains({b, a})) return;
    if (parted.contains({a, b}) || !nodes[Index(a)].running || !nodes[Index(b)].running) return;
    Up(a, b);
    Up(b, a);
  }
  void MeetAll() {
    for (int a = 0; a < Count(); ++a) {
      for (int b = a + 1; b < Count(); ++b) Meet(a, b);
    }
  }
  void Part(int a, int b) {
    parted.insert({a, b});
    parted.insert({b, a});
    Cut(a, b);
  }
  void Heal() { parted.clear(); }
  void Crash(int n) {
    nodes[Index(n)].running = false;
    for (int other = 0; other < Count(); ++other) Cut(n, other);
  }
  void Restart(int n) {
    Node& node = nodes[Index(n)];
    ++node.options.boot;
    ++node.options.seed;
    node.running = true;
    node.loaded.clear();
    node.active.clear();
    node.copies.clear();
    node.cluster = std::make_unique<Cluster>(node.options, now);
    for (int other = 0; other < Count(); ++other) {
      if (other != n) Meet(n, other);
    }
  }

  void Run(DurationUs duration) {
    for (const TimeUs end = now + duration; now < end;) {
      now += 50'000;
      for (int n = 0; n < Count(); ++n) {
        Node& node = nodes[Index(n)];
        if (!node.running || node.frozen) continue;
        node.cluster->OnTick(now + skew[n]);
        Obey(n);
      }
      Deliver();
    }
  }

  // Runs until `check` holds, at most so long; whether it did.
  bool Until(const std::function<bool()>& check, DurationUs limit = 60'000'000) {
    for (const TimeUs end = now + limit; now < end;) {
      if (check()) return true;
      Run(50'000);
    }
    return check();
  }

  void Loaded() {
    for (const auto& [n, asked] : std::exchange(loading, {})) EndLoad(n, asked);
  }

  Cluster& At(int n) { return *nodes[Index(n)].cluster; }
  Node& Of(int n) { return nodes[Index(n)]; }
  int Count() const { return static_cast<int>(nodes.size()); }
  MemberState StateOf(int at, int of) {
    for (const MemberView& member : At(at).members()) {
      if (member.record.id == TestId(of)) return member.state;
    }
    return MemberState::kLeft;
  }
  bool AllAlive() {
    for (int a = 0; a < Count(); ++a) {
      for (int b = 0; b < Count(); ++b) {
        if (StateOf(a, b) != MemberState::kAlive) return false;
      }
    }
    return true;
  }
  bool Agree() {
    for (int n = 1; n < Count(); ++n) {
      if (At(n).digest() != At(0).digest()) return false;
    }
    return true;
  }
  Status Place(int at, PlaceRequest request) {
    request.model = "m";
    const std::uint64_t id = At(at).RequestPlacement(now + skew[at], std::move(request));
    Obey(at);
    if (!Until([&] { return Of(at).done.contains(id); }, 400'000'000)) return Error{ErrorCode::kInternal, "no answer"};
    return Of(at).done.at(id).status;
  }

  std::vector<Node> nodes;
  TimeUs now = 1'000'000;
  std::set<std::pair<int, int>> parted;
  std::set<std::pair<int, int>> deaf;  // nothing comes from the first to the second; their link stays up
  std::map<int, DurationUs> skew;
  std::function<Status(int node, const PlacementRecord&)> load = [](int, const PlacementRecord&) { return Status(); };
  std::set<int> slow;  // nodes whose loads end when a test says so (Loaded)
  std::vector<std::pair<int, LoadStage>> loading;
  std::string wrong;  // something was asked for that cannot be

  static int NumberOf(const NodeId& id) { return id.bytes[0] - 1; }

 private:
  static std::size_t Index(int n) { return static_cast<std::size_t>(n); }

  void Up(int a, int b) {
    links_.insert({a, b});
    At(a).OnLinkUp(now + skew[a], TestId(b));
    Obey(a);
  }
  void Cut(int a, int b) {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
      if (links_.erase({from, to}) == 0 || !nodes[Index(from)].running) continue;
      At(from).OnLinkDown(now + skew[from], TestId(to));
    }
  }

  void Deliver() {
    std::vector<std::tuple<int, int, std::vector<std::uint8_t>>> batch;
    batch.swap(wire_);
    std::vector<std::tuple<int, int, std::vector<std::uint8_t>>> held;
    for (auto& [from, to, bytes] : batch) {
      if (!links_.contains({from, to}) || deaf.contains({from, to})) continue;
      if (nodes[Index(to)].frozen) {
        held.emplace_back(from, to, std::move(bytes));
        continue;
      }
      const Result<ClusterMessage> message = DecodeClusterMessage(bytes);
      SHOAL_CHECK(message.ok());
      At(to).OnMessage(now + skew[to], TestId(from), *message);
      Obey(to);
    }
    for (auto& one : held) wire_.push_back(std::move(one));
  }

  void Obey(int n) {
    for (;;) {
      const std::vector<Action> actions = At(n).TakeActions();
      if (actions.empty()) return;
      for (const Action& action : actions) Do(n, action);
    }
  }

  void Do(int n, const Action& action) {
    Node& node = nodes[Index(n)];
    if (const auto* send = std::get_if<Send>(&action)) {
      wire_.emplace_back(n, NumberOf(send->to), send->frame);
    } else if (const auto* connect = std::get_if<Connect>(&action)) {
      const int other = NumberOf(connect->node);
      if (!nodes[Index(other)].frozen) Meet(n, other);
    } else if (const auto* disconnect = std::get_if<Disconnect>(&action)) {
      Cut(n, NumberOf(disconnect->node));
    } else if (const auto* load_stage = std::get_if<LoadStage>(&action)) {
      Load(n, *load_stage);
    } else if (const auto* activate = std::get_if<Activate>(&action)) {
      Take(n, *activate);
    } else if (const auto* unload = std::get_if<UnloadStage>(&action)) {
      node.loaded.erase({unload->model, unload->epoch, unload->index});
      node.active.erase({unload->model, unload->epoch, unload->index});
    } else if (const auto* copy = std::get_if<LoadStandby>(&action)) {
      const LayerRange layers = copy->placement.LayersOf(copy->index);
      const Status loaded = load(n, copy->placement);
      if (loaded.ok()) node.copies.insert({copy->placement.model, layers.first, layers.last});
      node.cluster->OnStandbyReady(now + skew[n], copy->placement.model, layers, loaded);
    } else if (const auto* drop = std::get_if<DropStandby>(&action)) {
      node.copies.erase({drop->model, drop->layers.first, drop->layers.last});
    } else if (const auto* done = std::get_if<RequestDone>(&action)) {
      node.done.emplace(done->id, *done);
    } else if (const auto* left = std::get_if<Left>(&action)) {
      node.left.push_back(left->text);
      Crash(n);
    } else if (std::holds_alternative<PlacementsChanged>(action) || std::holds_alternative<MembersChanged>(action)) {
      nodes[Index(n)].told = At(n).placements();
    } else if (const auto* note = std::get_if<Note>(&action)) {
      node.notes.push_back(note->text);
    }
  }

  void Load(int n, const LoadStage& asked) {
    Node& node = nodes[Index(n)];
    const PlacementRecord& placement = asked.placement;
    const LayerRange layers = placement.LayersOf(asked.index);
    sources_[{n, placement.model, placement.epoch, asked.index}] = asked.source;
    if (asked.source.kind == StageSource::Kind::kRunning &&
        !node.active.contains({placement.model, asked.source.epoch, asked.source.index})) {
      wrong = "a stage is to be taken over that does not run";
    }
    if (asked.source.kind == StageSource::Kind::kStandby &&
        !node.copies.contains({placement.model, layers.first, layers.last})) {
      wrong = "a copy is to be taken that is not there";
    }
    if (asked.source.kind != StageSource::Kind::kDisk) {
      node.loaded.insert({placement.model, placement.epoch, asked.index});
      return;
    }
    if (slow.contains(n)) {
      loading.emplace_back(n, asked);
      return;
    }
    EndLoad(n, asked);
  }

  void EndLoad(int n, const LoadStage& asked) {
    Node& node = nodes[Index(n)];
    const PlacementRecord& placement = asked.placement;
    ++node.loads;
    const Status loaded = load(n, placement);
    if (loaded.ok()) node.loaded.insert({placement.model, placement.epoch, asked.index});
    node.cluster->OnStageReady(now + skew[n], placement.model, placement.epoch, asked.index, loaded);
  }

  void Take(int n, const Activate& activate) {
    Node& node = nodes[Index(n)];
    const PlacementRecord& placement = activate.placement;
    node.activated.push_back(placement.epoch);
    for (const std::int32_t index : activate.indices) {
      const LayerRange layers = placement.LayersOf(index);
      const StageSource source = sources_[{n, placement.model, placement.epoch, index}];
      if (!node.loaded.contains({placement.model, placement.epoch, index})) wrong = "a stage is active and not loaded";
      if (source.kind == StageSource::Kind::kRunning &&
          !node.active.contains({placement.model, source.epoch, source.index})) {
        wrong = "a stage is taken over that is gone";
      }
      if (source.kind == StageSource::Kind::kStandby &&
          node.copies.erase({placement.model, layers.first, layers.last}) == 0) {
        wrong = "a copy is taken that is gone";
      }
      node.active.insert({placement.model, placement.epoch, index});
    }
  }

  std::set<std::pair<int, int>> links_;
  std::map<std::tuple<int, std::string, Epoch, std::int32_t>, StageSource> sources_;
  std::vector<std::tuple<int, int, std::vector<std::uint8_t>>> wire_;
};

}  // namespace shoal
