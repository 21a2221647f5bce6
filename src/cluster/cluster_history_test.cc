// Seeded histories of faults: whatever happened, once it stops happening all nodes agree again.
//
// The control plane alone, in virtual time: crashes, restarts, cuts, freezes, clock jumps, requests, leaving. A failing
// seed is printed; SHOAL_HISTORY_SEED replays it alone, SHOAL_HISTORIES says how many to try.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>
#include <string>

#include "cluster/pump_test.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr DurationUs kAgreeWithin = 120 * kSecond;

class History {
 public:
  explicit History(std::uint64_t seed, bool break_tag = false) : rng_(seed) {
    const int count = 3 + static_cast<int>(rng_.Below(5));
    for (int i = 0; i < count; ++i) {
      pump_.Add([&](ClusterOptions& options) {
        options.seed = rng_.Next();
        options.break_epoch_tag = break_tag;
        if (rng_.Below(5) == 0) options.facts.models.clear();
      });
    }
    pump_.load = [this](int, const PlacementRecord&) {
      return rng_.Below(20) == 0 ? Status(Error{ErrorCode::kIo, "a slow card"}) : Status();
    };
    pump_.MeetAll();
    pump_.Run(5 * kSecond);
  }

  // Empty when every promise was kept.
  std::string Play() {
    for (int step = 0; step < 40; ++step) {
      Disturb();
      pump_.Run(static_cast<DurationUs>(rng_.Below(8 * 1'000'000)));
      if (std::string wrong = CheckAlways(); !wrong.empty()) return wrong;
    }
    // The faults stop.
    pump_.Heal();
    for (int n = 0; n < pump_.Count(); ++n) {
      pump_.Of(n).frozen = false;
      if (pump_.Of(n).running) pump_.At(n).SetDraining(pump_.now + pump_.skew[n], "");
      if (!pump_.Of(n).running && pump_.Of(n).left.empty()) pump_.Restart(n);
    }
    for (int a = 0; a < pump_.Count(); ++a) {
      for (int b = a + 1; b < pump_.Count(); ++b) pump_.Meet(a, b);
    }
    if (!pump_.Until([&] { return Settled().empty(); }, kAgreeWithin)) return "no agreement: " + Settled();
    pump_.Run(300 * kSecond);  // every wish has ended by then
    for (const auto& [node, id] : wishes_) {
      const Pump::Node& asked = pump_.Of(node);
      if (asked.running && asked.options.boot == boots_[{node, id}] && !asked.done.contains(id)) {
        return "a wish of node " + std::to_string(node) + " was never answered";
      }
    }
    return CheckAlways();
  }

 private:
  int Pick() { return static_cast<int>(rng_.Below(static_cast<std::uint64_t>(pump_.Count()))); }

  void Disturb() {
    const int n = Pick(), m = Pick();
    if (rng_.Below(8) == 0) return BreakPipeline(n);
    const bool up = pump_.Of(n).running && !pump_.Of(n).frozen;
    switch (rng_.Below(10)) {
      case 0: return pump_.Of(n).running && !pump_.Of(n).frozen ? pump_.Crash(n) : void();
      case 1:
      case 2: return !pump_.Of(n).running && pump_.Of(n).left.empty() ? pump_.Restart(n) : void();
      case 3: return n != m ? pump_.Part(n, m) : void();
      case 4: return pump_.Heal();
      case 5: pump_.Of(n).frozen = pump_.Of(n).running && !pump_.Of(n).frozen; return;
      case 6:
        if (up && rng_.Below(3) == 0) {
          pump_.At(n).SetDraining(pump_.now + pump_.skew[n], rng_.Below(2) == 0 ? "hot" : "");
          return;
        }
        pump_.skew[n] += static_cast<DurationUs>(rng_.Below(20'000'000)) - 10'000'000;
        return;
      case 7:
        if (up && rng_.Below(6) == 0 && Staying() > 2) pump_.At(n).Leave(pump_.now + pump_.skew[n]);
        return;
      default: break;
    }
    if (!up) return;
    PlaceRequest request;
    request.model = "m";
    request.stages = static_cast<std::int32_t>(rng_.Below(3));
    const std::uint64_t id = rng_.Below(5) == 0 ? pump_.At(n).RequestUnplace(pump_.now + pump_.skew[n], "m")
                                                : pump_.At(n).RequestPlacement(pump_.now + pump_.skew[n], request);
    wishes_.insert({n, id});
    boots_[{n, id}] = pump_.Of(n).options.boot;
  }

  void BreakPipeline(int n) {
    if (!pump_.Of(n).running || pump_.Of(n).frozen || pump_.Of(n).active.empty()) return;
    const auto [model, epoch, index] = *pump_.Of(n).active.begin();
    pump_.At(n).OnPipelineBroken(pump_.now + pump_.skew[n], model, epoch);
  }

  int Staying() {
    int count = 0;
    for (int n = 0; n < pump_.Count(); ++n) count += pump_.Of(n).left.empty() ? 1 : 0;
    return count;
  }

  // One epoch is one placement, whoever speaks of it.
  std::string CheckAlways() {
    if (!pump_.wrong.empty()) return pump_.wrong;
    for (int n = 0; n < pump_.Count(); ++n) {
      for (const PlacementView& view : pump_.At(n).placements()) {
        const auto [known, added] = by_epoch_.try_emplace(view.record.epoch, view.record.stages);
        if (!added && known->second != view.record.stages) return "two placements of one epoch";
      }
    }
    return {};
  }

  // What is still not as it should be; empty when all is.
  std::string Settled() {
    std::vector<int> here;
    holders_.clear();
    for (int n = 0; n < pump_.Count(); ++n) {
      if (pump_.Of(n).running) here.push_back(n);
      if (pump_.Of(n).running && !pump_.Of(n).options.facts.models.empty()) holders_.insert(n);
    }
    for (const int a : here) {
      if (pump_.At(a).digest() != pump_.At(here[0]).digest()) return "digests differ";
      for (const int b : here) {
        if (pump_.StateOf(a, b) != MemberState::kAlive) {
          return "node " + std::to_string(a) + " has " + std::to_string(b) + " as " +
                 std::string(MemberStateName(pump_.StateOf(a, b)));
        }
      }
      const auto placed = pump_.At(a).placement("m");
      const std::size_t expected = placed ? placed->record.StagesOf(TestId(a)).size() : 0;
      if (pump_.Of(a).loaded.size() != expected || pump_.Of(a).active.size() != expected) {
        return "node " + std::to_string(a) + " has " + std::to_string(pump_.Of(a).loaded.size()) + " stages loaded";
      }
      for (const auto& [model, first, last] : pump_.Of(a).copies) {
        bool wanted = false;
        for (const StagePlace& stage : placed ? placed->record.stages : std::vector<StagePlace>()) {
          wanted = wanted || (stage.node != TestId(a) && stage.layers == LayerRange{first, last});
        }
        if (!wanted) return "node " + std::to_string(a) + " keeps a copy of what is not placed";
      }
      if (placed && !placed->broken && here.size() > 2 && holders_.size() == here.size() && placed->survives.empty()) {
        return "no copies, though there is room";
      }
      bool holders = false;
      for (const int b : here) holders = holders || !pump_.Of(b).options.facts.models.empty();
      if (placed && placed->broken && holders) return "the placement stays broken: " + placed->reason;
    }
    return {};
  }

  Rng rng_;
  Pump pump_;
  std::set<int> holders_;
  std::set<std::pair<int, std::uint64_t>> wishes_;
  std::map<std::pair<int, std::uint64_t>, std::uint64_t> boots_;
  std::map<Epoch, std::vector<StagePlace>> by_epoch_;
};

std::uint64_t Number(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(ClusterHistories, EndInAgreement) {
  const std::uint64_t one = Number("SHOAL_HISTORY_SEED", 0);
  const std::uint64_t count = one != 0 ? 1 : Number("SHOAL_HISTORIES", 60);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t seed = one != 0 ? one : 1000 + i;
    const std::string wrong = History(seed).Play();
    ASSERT_EQ(wrong, "") << "SHOAL_HISTORY_SEED=" << seed;
  }
}

TEST(ClusterHistories, EpochsWithoutTheDecidersTagAreCaught) {
  bool caught = false;
  for (std::uint64_t seed = 1; seed < 200 && !caught; ++seed) {
    caught = History(seed, true).Play().find("one epoch") != std::string::npos;
  }
  EXPECT_TRUE(caught) << "a rule that is broken on purpose must show";
}

}  // namespace
}  // namespace shoal
