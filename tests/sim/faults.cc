// What goes wrong, how long, and how it ends.
#include "sim/faults.h"

namespace shoal::sim {
namespace {

constexpr DurationUs kGapMaxUs = 12 * kSecond, kCalmUs = 30 * kSecond;
constexpr std::uint64_t kCalmEvery = 12;
constexpr DurationUs kAnsweringUs = 1 * kSecond;
constexpr int kAsksOfCrash = 3;
constexpr int kCalmNodes = 16;  // faults come more often in larger clusters

LinkQuality Usual(Rng& rng) {
  LinkQuality quality;
  quality.delay_us = 200 + static_cast<DurationUs>(rng.Below(5'000));
  quality.jitter_us = static_cast<DurationUs>(rng.Below(static_cast<std::uint64_t>(quality.delay_us)));
  return quality;
}

}  // namespace

Faults::Faults(Network& network, std::vector<std::unique_ptr<SimNode>>& nodes, const std::vector<FakeModel>& models,
               Clients& clients)
    : network_(network), nodes_(nodes), models_(models), clients_(clients) {
  for (int a = 0; a < network_.nodes(); ++a) {
    for (int b = a + 1; b < network_.nodes(); ++b) network_.SetQuality(a, b, Usual(network_.rng()));
  }
}

void Faults::Start() {
  active_ = true;
  Next();
}

void Faults::Stop() {
  active_ = false;
  for (int a = 0; a < network_.nodes(); ++a) {
    for (int b = a + 1; b < network_.nodes(); ++b) {
      network_.Heal(a, b);
      network_.SetQuality(a, b, Usual(network_.rng()));
    }
    at(a).hardware = {};
    network_.Thaw(a);
    if (network_.running(a)) at(a).SetDraining({});
    if (!network_.running(a) && !at(a).left()) at(a).Start();
  }
}

DurationUs Faults::Between(DurationUs least, DurationUs most) {
  return least + static_cast<DurationUs>(network_.rng().Below(static_cast<std::uint64_t>(most - least)));
}

void Faults::Note(DurationUs lasts) {
  if (network_.now() < broken_until_) ++overlapping_;
  broken_until_ = std::max(broken_until_, network_.now() + lasts);
}

void Faults::Next() {
  if (!active_) return;
  ++count_;
  Disturb();
  const int scale = 1 + network_.nodes() / kCalmNodes;
  const DurationUs gap = network_.rng().Below(kCalmEvery) == 0 ? kCalmUs : Between(0, kGapMaxUs) / scale;
  network_.After(gap, [this] { Next(); });
}

void Faults::Disturb() {
  const int n = Pick(), m = Pick();
  switch (network_.rng().Below(19)) {
    case 0: return CrashEntry(n);
    case 1:
    case 2: return Freeze(n);
    case 3:
    case 4: return CutNow(n, m);
    case 5:
    case 6: return Partition();
    case 7:
    case 8: return Spoil(n, m);
    case 9: return at(n).JumpClock(Between(-10 * kSecond, 10 * kSecond));
    case 10:
    case 11: return SlowDown(n);
    case 12: return LeaveNow(n);
    case 13:
    case 14: return CutOneWay(n, m);
    case 15: return Drain(n);
    default: return Wish(n);
  }
}

void Faults::Crash(int node) {
  if (!network_.running(node)) return;
  clients_.OnCrash(node);
  at(node).Crash(network_.rng().Below(2) == 0);
  const DurationUs down = Between(500 * kMillisecond, 60 * kSecond);
  Note(down);
  network_.After(down, [this, node] { Restart(node); });
}

// Some have just asked it.
void Faults::CrashEntry(int node) {
  if (!at(node).up()) return Crash(node);
  for (int asks = 0; asks < kAsksOfCrash; ++asks) {
    (void)clients_.Begin(node, models_[network_.rng().Below(models_.size())]);
  }
  network_.After(Between(0, kAnsweringUs), [this, node] {
    if (active_) Crash(node);
  });
}

void Faults::Restart(int node) {
  if (active_ && !network_.running(node) && !at(node).left()) at(node).Start();
}

void Faults::Freeze(int node) {
  network_.Freeze(node);
  const DurationUs frozen = Between(200 * kMillisecond, 40 * kSecond);
  Note(frozen);
  network_.After(frozen, [this, node] {
    if (active_) network_.Thaw(node);
  });
}

void Faults::CutNow(int a, int b) {
  const DurationUs duration = Between(500 * kMillisecond, 60 * kSecond);
  if (a != b) Note(duration);
  CutPair(a, b, duration);
}

void Faults::CutPair(int a, int b, DurationUs duration) {
  if (a == b) return;
  network_.Cut(a, b);
  network_.After(duration, [this, a, b] { network_.Heal(a, b); });
}

void Faults::CutOneWay(int from, int to) {
  if (from == to) return;
  const DurationUs duration = Between(500 * kMillisecond, 60 * kSecond);
  Note(duration);
  network_.CutOneWay(from, to);
  network_.After(duration, [this, from, to] { network_.Heal(from, to); });
}

// Its battery is low, until it is charged; a start forgets it.
void Faults::Drain(int node) {
  if (!at(node).up()) return;
  const DurationUs low = Between(1 * kSecond, 60 * kSecond);
  Note(low);
  at(node).SetDraining("the battery is low");
  network_.Post(node, low, [this, node] { at(node).SetDraining({}); });
}

void Faults::Partition() {
  const DurationUs duration = Between(1 * kSecond, 60 * kSecond);
  Note(duration);
  std::vector<bool> side;
  for (int node = 0; node < network_.nodes(); ++node) side.push_back(network_.rng().Below(2) == 0);
  for (int a = 0; a < network_.nodes(); ++a) {
    for (int b = a + 1; b < network_.nodes(); ++b) {
      if (side[static_cast<std::size_t>(a)] != side[static_cast<std::size_t>(b)]) CutPair(a, b, duration);
    }
  }
}

void Faults::Spoil(int a, int b) {
  if (a == b) return;
  LinkQuality quality;
  quality.delay_us = Between(kMillisecond, 300 * kMillisecond);
  quality.jitter_us = Between(0, 200 * kMillisecond);
  quality.loss = 0.3 * network_.rng().Uniform();
  network_.SetQuality(a, b, quality);
  const DurationUs bad = Between(1 * kSecond, 60 * kSecond);
  Note(bad);
  network_.After(bad, [this, a, b] {
    if (active_) network_.SetQuality(a, b, Usual(network_.rng()));
  });
}

void Faults::SlowDown(int node) {
  Hardware& hardware = at(node).hardware;
  switch (network_.rng().Below(4)) {
    case 0: hardware.disk_slowness = 1 + 19 * network_.rng().Uniform(); break;
    case 1: hardware.compute_slowness = 1 + 30 * network_.rng().Uniform(); break;
    case 2: hardware.load_failures = network_.rng().Below(2) == 0 ? 0.5 : 1; break;
    default: hardware.batch_failures = 0.05; break;
  }
  const DurationUs slow = Between(1 * kSecond, 60 * kSecond);
  Note(slow);
  network_.After(slow, [this, node] {
    if (active_) at(node).hardware = {};
  });
}

void Faults::LeaveNow(int node) {
  int staying = 0;
  for (const auto& one : nodes_) staying += one->leaving() ? 0 : 1;
  if (staying > kStayingMin && at(node).up() && network_.rng().Below(6) == 0) at(node).Leave();
}

void Faults::Wish(int node) {
  if (!at(node).up()) return;
  const FakeModel& model = models_[network_.rng().Below(models_.size())];
  if (network_.rng().Below(6) != 0) {
    (void)Place(node, model.name, static_cast<std::int32_t>(network_.rng().Below(4)));
    return;
  }
  clients_.OnUnplaceAsked(model.name);
  const std::uint64_t id = at(node).Unplace(model.name);
  wishes_.emplace_back(node, at(node).boot(), id);
}

std::uint64_t Faults::Place(int node, const std::string& model, std::int32_t stages) {
  const std::uint64_t id = at(node).Place(model, stages);
  wishes_.emplace_back(node, at(node).boot(), id);
  return id;
}

std::string Faults::UnansweredWish() const {
  for (const auto& [node, boot, id] : wishes_) {
    if (!network_.running(node) || at(node).boot() != boot || at(node).answered().contains(id)) continue;
    return "request " + std::to_string(id) + " of node " + std::to_string(node);
  }
  return {};
}

}  // namespace shoal::sim
