// What a plan costs: the one place that says how long stages and links take.
//
// A pass of r rows through a stage reads its weights once and computes r rows: its time is that of one of kRowPoints,
// where kernels change their ways, and in between goes in a straight line. Each row also reads its K and V. The output
// head is asked for one row of a prompt, and for each row of a pass of several answers.
//   one stream    every token goes through all stages and links, its id back to the head, and from there to who asked
//   a prompt      passes of kPassRows rows follow each other: the slowest stage or link sets the pace
//   energy        a stage takes so much for each second that it computes, a device for each second that it is awake
//   many streams  go in groups, as many as proves fastest; a round takes the slowest stage times the groups, or the way
//                 around
// These objectives are a sum over stages and links (A) and the largest of them (B): latency A + w B, throughput
// max(g B, A). The searches know no more than that.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "planner/plan.h"

namespace shoal {

inline constexpr std::int32_t kPassRows = 64;  // of a micro-batch
inline constexpr std::int32_t kGroupRows = 8;  // of several answers together
// Rows of passes that are measured: those of layers; the output head's are the first four.
inline constexpr std::array<std::int32_t, 5> kRowPoints = {1, 2, 4, kGroupRows, kPassRows};

// Of a device's passes, with what follows where nothing was measured. Seconds a byte; more rows never cost less.
struct BytePrices {
  explicit BytePrices(const PlanDevice& device);
  double Weights(double rows) const;  // of layers, in a pass of `rows`
  double Output(double rows) const;   // of the output head, asked for `rows`
  double kv = 0, kv_many = 0;         // of K and V for each row, in passes of few and of kPassRows rows
  std::array<double, 5> layers = {};  // in passes of kRowPoints rows
  std::array<double, 4> output = {};  // the same
  double output_more = 0;             // of each row beyond kGroupRows
};

// Answers at once, as groups of so many rows on average that are under way together.
struct StreamGroups {
  double count = 1, rows = 1;
};
inline constexpr std::int32_t kStreamGroupsMax = 16;
// The ways to group the workload's streams that a head tries where there are `stages` stages
// (schedule/decode_groups.h), fewest groups first. Not those of fewer groups than stages, which leave stages idle: a
// head finds out where rows are so cheap that this pays, a plan does not count on it.
std::vector<StreamGroups> GroupingsOf(const PlanWorkload& workload, std::size_t stages);

// Bytes of `device` that stages may take, compute buffers included.
inline double RoomOf(const PlanInput& input, const PlanDevice& device) {
  return static_cast<double>(device.memory_bytes) * (1 - input.policy.memory_headroom);
}

// Prefix sums over the places where the model may be cut, and what every device can hold.
class PlanSizes {
 public:
  explicit PlanSizes(const PlanInput& input);

  // Segment i is layers [places[i], places[i + 1]).
  std::size_t segments() const { return places_.size() - 1; }
  std::int32_t place(std::size_t i) const { return places_[i]; }
  double weights(std::size_t a, std::size_t b) const { return weights_[b] - weights_[a]; }  // bytes, no output head
  double kv(std::size_t a, std::size_t b) const { return kv_[b] - kv_[a]; }                 // bytes a token
  // Memory that segments take: weights and reserved K and V. First and last add head_extra() and last_extra().
  double memory(std::size_t a, std::size_t b) const { return memory_[b] - memory_[a]; }
  double head_extra() const { return head_extra_; }
  double last_extra() const { return last_extra_; }
  double sent_extra() const { return sent_extra_; }                // of every stage but the last
  double room(std::size_t device) const { return room_[device]; }  // for segments and extras
  bool Fits(std::size_t device, std::size_t a, std::size_t b) const {
    return memory(a, b) + (a == 0 ? head_extra_ : 0) + (b == segments() ? last_extra_ : sent_extra_) <= room_[device];
  }

 private:
  std::vector<std::int32_t> places_;
  std::vector<double> weights_, kv_, memory_, room_;
  double head_extra_ = 0, last_extra_ = 0, sent_extra_ = 0;
};

// A linear price: seconds of a stage with so many bytes of weights and of K and V.
struct StagePrice {
  double fixed = 0, weight = 0, kv = 0;
  double last = 0;  // added on the last stage
  double Of(double weights, double kv_bytes, bool is_last) const {
    return fixed + weight * weights + kv * kv_bytes + (is_last ? last : 0);
  }
};

// The objective as prices; that of throughput for one way to group the streams. `input` outlives it.
class PlanPrices {
 public:
  explicit PlanPrices(const PlanInput& input, const StreamGroups& groups = {});
  // The energy of plans on all of `devices`: what each takes while it computes, and what all take awake as long as the
  // request lasts.
  PlanPrices(const PlanInput& input, const std::vector<std::size_t>& devices);

  const StagePrice& sum(std::size_t device) const { return sum_[device]; }
  const StagePrice& pace(std::size_t device) const { return pace_[device]; }
  double link_sum(std::size_t from, std::size_t to) const { return link_sum_.Of(LinkOf(from, to)); }
  double link_pace(std::size_t from, std::size_t to) const { return link_pace_.Of(LinkOf(from, to)); }
  // With what a token costs at the head.
  double way_back(std::size_t last, std::size_t head) const {
    return at_head_[head] + (last == head ? 0 : way_back_.Of(LinkOf(last, head)));
  }
  // Whether the larger of the two counts, not both.
  bool takes_larger() const { return by_pace_ > 0; }
  double groups() const { return by_pace_; }  // of streams, where it does
  // The objective of a sum and a pace.
  double Cost(double sum, double pace) const {
    return by_pace_ > 0 ? std::max(by_pace_ * pace, sum) * scale_ : (sum + pace_weight_ * pace) * scale_;
  }
  // The largest pace and the largest sum that a plan better than `cost` may have.
  double PaceBelow(double cost, double sum) const;
  double SumBelow(double cost, double pace) const;

 private:
  // Seconds of a link: so many times its latency, and so many bytes.
  struct LinkPrice {
    double latencies = 0, bytes = 0;
    double Of(const PlanLink& link) const { return latencies * link.latency_s + bytes / link.bytes_s; }
  };
  const PlanLink& LinkOf(std::size_t from, std::size_t to) const { return (*links_)[from * devices_ + to]; }
  void PriceLatency(const PlanInput& input);
  void PriceThroughput(const PlanInput& input, const StreamGroups& groups);

  std::size_t devices_ = 0;
  std::vector<StagePrice> sum_, pace_;
  const std::vector<PlanLink>* links_;
  LinkPrice link_sum_, link_pace_, way_back_;
  std::vector<double> at_head_;
  double by_pace_ = 0;      // throughput: groups under way
  double pace_weight_ = 0;  // latency: passes of the prompt after the first
  double scale_ = 1;
};

// A plan in segments: stage i runs on devices[i] from starts[i] to starts[i + 1], the last one to the end.
struct SegmentPlan {
  std::vector<std::size_t> devices, starts;
  double cost = 0;
};
// Sum and pace of a plan under `prices`.
double CostOf(const PlanSizes& sizes, const PlanPrices& prices, const SegmentPlan& plan);

// Everything that is said of a plan. Precondition: it is one (CheckStages).
Plan Predict(const PlanInput& input, const std::vector<PlanStage>& stages);

}  // namespace shoal
