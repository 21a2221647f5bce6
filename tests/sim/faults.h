// Seeded faults and wishes of people, one after the other, until they are told to stop; then everything is undone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "sim/clients.h"
#include "sim/network.h"
#include "sim/node.h"

namespace shoal::sim {

inline constexpr int kStayingMin = 3;  // nodes that nobody asks to leave for good

class Faults {
 public:
  Faults(Network& network, std::vector<std::unique_ptr<SimNode>>& nodes, const std::vector<FakeModel>& models,
         Clients& clients);

  void Start();
  // No faults any more; what was broken is whole again: cuts, freezes, slow links and disks; who crashed starts.
  void Stop();

  // A request for a placement that is still owed an answer; empty: none is.
  std::string UnansweredWish() const;
  // Of the node; what it is asked is remembered until answered.
  std::uint64_t Place(int node, const std::string& model, std::int32_t stages);
  std::uint64_t count() const { return count_; }
  // Those that came while another one was there.
  std::uint64_t overlapping() const { return overlapping_; }

 private:
  void Next();
  void Disturb();
  void Crash(int node);
  void CrashEntry(int node);
  void Restart(int node);
  void Freeze(int node);
  void CutNow(int a, int b);
  void CutPair(int a, int b, DurationUs duration);
  void CutOneWay(int from, int to);
  void Drain(int node);
  void Partition();
  void Spoil(int a, int b);
  void SlowDown(int node);
  void Wish(int node);
  void LeaveNow(int node);
  int Pick() { return static_cast<int>(network_.rng().Below(nodes_.size())); }
  DurationUs Between(DurationUs least, DurationUs most);
  // A fault of that length begins now.
  void Note(DurationUs lasts);
  SimNode& at(int node) { return *nodes_[static_cast<std::size_t>(node)]; }
  const SimNode& at(int node) const { return *nodes_[static_cast<std::size_t>(node)]; }

  Network& network_;
  std::vector<std::unique_ptr<SimNode>>& nodes_;
  const std::vector<FakeModel>& models_;
  Clients& clients_;
  bool active_ = false;
  std::uint64_t count_ = 0, overlapping_ = 0;
  TimeUs broken_until_ = 0;                                            // the latest end of all faults so far
  std::vector<std::tuple<int, std::uint64_t, std::uint64_t>> wishes_;  // node, boot, id
};

}  // namespace shoal::sim
