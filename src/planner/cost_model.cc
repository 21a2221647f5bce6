// The formulas of the header.
#include "planner/cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>

namespace shoal {
namespace {

constexpr double kTokenIdBytes = 64;  // a frame with the id of the next token

// How much less each row pays for K and V in a pass of many, where nobody measured it: ggml on a server's core.
constexpr double kManyRowsShareKv = 4;

double MeanContext(const PlanWorkload& workload) { return workload.prompt_tokens + workload.answer_tokens / 2.0; }

// Micro-batches of a prompt.
double Passes(const PlanWorkload& workload) { return std::ceil(workload.prompt_tokens / double{kPassRows}); }

double HopSeconds(const PlanLink& link, double bytes) { return link.latency_s + bytes / link.bytes_s; }

StagePrice DecodePrice(const PlanInput& input, const PlanDevice& device, double rows) {
  StagePrice price;
  price.fixed = device.pass_overhead_s;
  const BytePrices bytes(device);
  price.weight = bytes.Weights(rows);
  price.kv = rows * MeanContext(input.workload) * bytes.kv;
  price.last = bytes.Output(rows) * static_cast<double>(input.model.output_bytes);
  return price;
}

StagePrice PassPrice(const PlanInput& input, const PlanDevice& device) {
  StagePrice price;
  price.fixed = device.pass_overhead_s;
  const BytePrices bytes(device);
  price.weight = bytes.Weights(kPassRows);
  price.kv = kPassRows * input.workload.prompt_tokens / 2.0 * bytes.kv_many;
  return price;
}

// Of a stage's layers: bytes, and bytes of K and V for a token.
struct StageSize {
  double weights = 0, kv = 0;
};
std::vector<StageSize> SizesOf(const PlanModel& model, const std::vector<PlanStage>& stages) {
  std::vector<StageSize> sizes(stages.size());
  for (std::size_t i = 0; i < stages.size(); ++i) {
    for (std::int32_t layer = stages[i].layers.first; layer < stages[i].layers.last; ++layer) {
      sizes[i].weights += static_cast<double>(model.layer_bytes[static_cast<std::size_t>(layer)]);
      sizes[i].kv += static_cast<double>(model.kv_bytes[static_cast<std::size_t>(layer)]);
    }
  }
  return sizes;
}

// From stage i to the next, or back to the head.
const PlanLink& LinkAfter(const PlanInput& input, const std::vector<PlanStage>& stages, std::size_t i) {
  const std::size_t next = i + 1 < stages.size() ? i + 1 : 0;
  return input.links[static_cast<std::size_t>(stages[i].device) * input.devices.size() +
                     static_cast<std::size_t>(stages[next].device)];
}

struct Round {
  double seconds = std::numeric_limits<double>::infinity();
  std::int32_t groups = 1;
};
// Of a token for each stream, grouped in the way that is fastest.
Round FastestRound(const PlanInput& input, const std::vector<PlanStage>& stages, const std::vector<StageSize>& sizes) {
  Round best;
  for (const StreamGroups& groups : GroupingsOf(input.workload, stages.size())) {
    const double bytes = static_cast<double>(input.model.hidden_bytes) * groups.rows;
    double round = input.devices[static_cast<std::size_t>(stages[0].device)].token_s, pace = 0;
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const PlanDevice& device = input.devices[static_cast<std::size_t>(stages[i].device)];
      const bool is_last = i + 1 == stages.size();
      const double pass = DecodePrice(input, device, groups.rows).Of(sizes[i].weights, sizes[i].kv, is_last);
      round += pass;
      pace = std::max(pace, pass);
      if (stages.size() == 1) break;
      const PlanLink& link = LinkAfter(input, stages, i);
      round += HopSeconds(link, is_last ? kTokenIdBytes * groups.rows : bytes);
      if (!is_last) pace = std::max(pace, bytes / link.bytes_s);
    }
    const double seconds = std::max(groups.count * pace, round);
    if (seconds < best.seconds) best = {seconds, static_cast<std::int32_t>(groups.count)};
  }
  return best;
}

// Tokens that a request asks for after its first.
double Answers(const PlanWorkload& workload) { return std::max(workload.answer_tokens - 1, 0); }

// `passes` of a prompt and `answers` more tokens. The output head is asked once for the prompt, then for every token.
StagePrice RequestPrice(const StagePrice& decode, const StagePrice& pass, double answers, double passes) {
  return {answers * decode.fixed + passes * pass.fixed, answers * decode.weight + passes * pass.weight,
          answers * decode.kv + passes * pass.kv, (answers + 1) * decode.last};
}

double JouleWeight(const PlanInput& input, const PlanDevice& device) {
  return device.on_battery ? input.policy.battery_weight : 1;
}

double OrElse(double bytes_s, double otherwise) { return bytes_s > 0 ? 1 / bytes_s : otherwise; }

// Where the straight line from (`x0`, `y0`) to (`x1`, `y1`) is at `x`.
double Between(double x0, double y0, double x1, double y1, double x) { return y0 + (y1 - y0) * (x - x0) / (x1 - x0); }

// The line through kRowPoints and `prices`; at its ends it stays as it is.
double OnLine(std::span<const double> prices, double rows) {
  if (rows <= kRowPoints[0]) return prices[0];
  for (std::size_t i = 1; i < prices.size(); ++i) {
    if (rows <= kRowPoints[i]) return Between(kRowPoints[i - 1], prices[i - 1], kRowPoints[i], prices[i], rows);
  }
  return prices.back();
}

// Prices of two and of four rows, between those of one and of kGroupRows, which are there.
void FillFew(std::span<double> prices, double pair_bytes_s, double quad_bytes_s) {
  const double one = prices[0], group = prices[3];
  prices[1] = std::clamp(OrElse(pair_bytes_s, Between(1, one, kGroupRows, group, 2)), one, group);
  prices[2] = std::clamp(OrElse(quad_bytes_s, Between(2, prices[1], kGroupRows, group, 4)), prices[1], group);
}

}  // namespace

BytePrices::BytePrices(const PlanDevice& device) {
  const double one = 1 / device.decode_bytes_s;
  const double many = std::max(one, 1 / device.prefill_bytes_s);
  const double group =
      std::clamp(OrElse(device.group_bytes_s, Between(1, one, kPassRows, many, kGroupRows)), one, many);
  layers = {one, 0, 0, group, many};
  FillFew(layers, device.pair_bytes_s, device.quad_bytes_s);
  kv = 1 / device.kv_bytes_s;
  kv_many = OrElse(device.kv_prefill_bytes_s, kv / kManyRowsShareKv);
  output[0] = OrElse(device.output_bytes_s, one);
  output[3] = std::max(output[0], OrElse(device.output_group_bytes_s, output[0] * group / one));
  FillFew(output, device.output_pair_bytes_s, device.output_quad_bytes_s);
  output_more = (output[3] - output[0]) / (kGroupRows - 1);
}

double BytePrices::Weights(double rows) const { return OnLine(layers, rows); }

double BytePrices::Output(double rows) const {
  return OnLine(output, rows) + output_more * std::max(rows - kGroupRows, 0.0);
}

std::vector<StreamGroups> GroupingsOf(const PlanWorkload& workload, std::size_t stages) {
  const std::int32_t most = std::min(workload.streams, kStreamGroupsMax);
  const auto least = static_cast<std::int32_t>(std::min(stages, static_cast<std::size_t>(most)));
  std::set<std::int32_t> wanted = {least, most};
  for (std::int32_t groups = 1; groups < most; groups *= 2) wanted.insert(std::max(groups, least));
  std::set<std::int32_t> counts;  // whole rows make some of them the same
  for (const std::int32_t groups : wanted) {
    const std::int32_t rows = (workload.streams + groups - 1) / groups;
    counts.insert((workload.streams + rows - 1) / rows);
  }
  std::vector<StreamGroups> groupings;
  for (const std::int32_t count : counts) groupings.push_back({double(count), double(workload.streams) / count});
  return groupings;
}

PlanSizes::PlanSizes(const PlanInput& input) {
  const PlanModel& model = input.model;
  places_.push_back(0);
  for (const std::int32_t cut : model.cuts) places_.push_back(cut);
  places_.push_back(static_cast<std::int32_t>(model.layer_bytes.size()));
  weights_ = kv_ = memory_ = std::vector<double>(places_.size(), 0);
  for (std::size_t i = 0; i + 1 < places_.size(); ++i) {
    double weights = 0, kv = 0;
    for (auto layer = static_cast<std::size_t>(places_[i]); layer < static_cast<std::size_t>(places_[i + 1]); ++layer) {
      weights += static_cast<double>(model.layer_bytes[layer]);
      kv += static_cast<double>(model.kv_bytes[layer]);
    }
    weights_[i + 1] = weights_[i] + weights;
    kv_[i + 1] = kv_[i] + kv;
    memory_[i + 1] = memory_[i] + weights + kv * input.workload.context_tokens;
  }
  head_extra_ = static_cast<double>(model.head_bytes);
  last_extra_ = static_cast<double>(model.output_bytes);
  sent_extra_ = static_cast<double>(model.sent_bytes);
  for (const PlanDevice& device : input.devices) {
    room_.push_back(RoomOf(input, device) - static_cast<double>(input.policy.stage_bytes));
  }
}

PlanPrices::PlanPrices(const PlanInput& input, const StreamGroups& groups)
    : devices_(input.devices.size()), links_(&input.links) {
  if (input.policy.objective == PlanObjective::kThroughput) {
    PriceThroughput(input, groups);
  } else {
    PriceLatency(input);
  }
}

PlanPrices::PlanPrices(const PlanInput& input, const std::vector<std::size_t>& devices)
    : devices_(input.devices.size()), links_(&input.links) {
  PriceLatency(input);
  double idle_w = 0;
  for (const std::size_t d : devices) idle_w += JouleWeight(input, input.devices[d]) * input.devices[d].idle_w;
  for (std::size_t d = 0; d < devices_; ++d) {
    const double active_w = JouleWeight(input, input.devices[d]) * input.devices[d].active_w;
    const StagePrice busy = RequestPrice(DecodePrice(input, input.devices[d], 1), pace_[d], Answers(input.workload),
                                         Passes(input.workload));
    StagePrice& sum = sum_[d];
    sum = {idle_w * sum.fixed + active_w * busy.fixed, idle_w * sum.weight + active_w * busy.weight,
           idle_w * sum.kv + active_w * busy.kv, idle_w * sum.last + active_w * busy.last};
    at_head_[d] *= idle_w + active_w;
  }
  for (LinkPrice* const price : {&link_sum_, &way_back_}) {
    price->latencies *= idle_w;
    price->bytes *= idle_w;
  }
  pace_weight_ *= idle_w;
}

void PlanPrices::PriceLatency(const PlanInput& input) {
  const double answers = Answers(input.workload);
  pace_weight_ = Passes(input.workload) - 1;
  for (const PlanDevice& device : input.devices) {
    const StagePrice pass = PassPrice(input, device);
    sum_.push_back(RequestPrice(DecodePrice(input, device, 1), pass, answers, 1));
    pace_.push_back(pass);
    at_head_.push_back((answers + 1) * device.token_s);
  }
  const auto row = static_cast<double>(input.model.hidden_bytes);
  link_sum_ = {answers + 1, answers * row + kPassRows * row};
  link_pace_ = {0, kPassRows * row};
  way_back_ = {answers + 1, (answers + 1) * kTokenIdBytes};
}

void PlanPrices::PriceThroughput(const PlanInput& input, const StreamGroups& groups) {
  by_pace_ = groups.count;
  scale_ = 1.0 / input.workload.streams;
  for (const PlanDevice& device : input.devices) {
    sum_.push_back(DecodePrice(input, device, groups.rows));
    at_head_.push_back(device.token_s);
  }
  pace_ = sum_;
  const double bytes = static_cast<double>(input.model.hidden_bytes) * groups.rows;
  link_sum_ = {1, bytes};
  link_pace_ = {0, bytes};
  way_back_ = {1, kTokenIdBytes * groups.rows};
}

double PlanPrices::PaceBelow(double cost, double sum) const {
  if (by_pace_ > 0) return cost / scale_ / by_pace_;
  if (pace_weight_ <= 0) return std::numeric_limits<double>::infinity();
  return (cost / scale_ - sum) / pace_weight_;
}

double PlanPrices::SumBelow(double cost, double pace) const {
  return by_pace_ > 0 ? cost / scale_ : cost / scale_ - pace_weight_ * pace;
}

double CostOf(const PlanSizes& sizes, const PlanPrices& prices, const SegmentPlan& plan) {
  double sum = 0, pace = 0;
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    const std::size_t device = plan.devices[i];
    const std::size_t begin = plan.starts[i];
    const bool is_last = i + 1 == plan.devices.size();
    const std::size_t end = is_last ? sizes.segments() : plan.starts[i + 1];
    sum += prices.sum(device).Of(sizes.weights(begin, end), sizes.kv(begin, end), is_last);
    pace = std::max(pace, prices.pace(device).Of(sizes.weights(begin, end), sizes.kv(begin, end), is_last));
    if (is_last) break;
    sum += prices.link_sum(device, plan.devices[i + 1]);
    pace = std::max(pace, prices.link_pace(device, plan.devices[i + 1]));
  }
  sum += prices.way_back(plan.devices.back(), plan.devices.front());
  return prices.Cost(sum, pace);
}

Plan Predict(const PlanInput& input, const std::vector<PlanStage>& stages) {
  const std::vector<StageSize> sizes = SizesOf(input.model, stages);
  const auto row = static_cast<double>(input.model.hidden_bytes);
  const double answers = Answers(input.workload), passes = Passes(input.workload);
  Plan plan;
  plan.stages = stages;
  double token = 0, prompt = 0, pace = 0;
  double joules = 0, weighted = 0, idle_w = 0, weighted_idle_w = 0;
  bool knows_power = true;
  double brief = 0, longest = 0;  // a token whose stages wait for each other, and do not feel their rations
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const PlanDevice& device = input.devices[static_cast<std::size_t>(stages[i].device)];
    const bool is_last = i + 1 == stages.size();
    const auto [weights, kv] = sizes[i];
    const StagePrice one = DecodePrice(input, device, 1), of_pass = PassPrice(input, device);
    const double at_head = i == 0 ? device.token_s : 0;
    const double of_token = one.Of(weights, kv, is_last) + at_head;
    token += of_token;
    brief += of_token * device.ration;
    longest = std::max(longest, of_token);
    const double pass = of_pass.Of(weights, kv, is_last);
    prompt += pass + (is_last ? one.last : 0) + at_head;
    const double active = device.active_w * (RequestPrice(one, of_pass, answers, passes).Of(weights, kv, is_last) +
                                             (answers + 1) * at_head);
    joules += active;
    weighted += JouleWeight(input, device) * active;
    idle_w += device.idle_w;
    weighted_idle_w += JouleWeight(input, device) * device.idle_w;
    knows_power = knows_power && device.idle_w + device.active_w > 0;
    pace = std::max(pace, pass);
    double memory = weights + kv * input.workload.context_tokens + static_cast<double>(input.policy.stage_bytes);
    memory += i == 0 ? static_cast<double>(input.model.head_bytes) : 0;
    memory += static_cast<double>(is_last ? input.model.output_bytes : input.model.sent_bytes);
    plan.memory_bytes.push_back(static_cast<std::uint64_t>(memory));
    plan.kv_bytes.push_back(static_cast<std::uint64_t>(kv * input.workload.context_tokens));
    if (stages.size() == 1) break;
    const PlanLink& link = LinkAfter(input, stages, i);
    const double hop = HopSeconds(link, is_last ? kTokenIdBytes : row);
    token += hop;
    brief += hop;
    prompt += HopSeconds(link, is_last ? kTokenIdBytes : row * kPassRows);
    if (is_last) break;
    pace = std::max(pace, row * kPassRows / link.bytes_s);
  }
  plan.first_token_s = prompt + (passes - 1) * pace;
  plan.tokens_s = 1 / std::max(brief, longest);
  const Round round = FastestRound(input, stages, sizes);
  plan.tokens_s_many = input.workload.streams / round.seconds;
  plan.groups = round.groups;
  plan.request_s = plan.first_token_s + answers * token;
  if (knows_power) plan.joules_token = (joules + idle_w * plan.request_s) / input.workload.answer_tokens;
  switch (input.policy.objective) {
    case PlanObjective::kLatency: plan.cost = plan.request_s; break;
    case PlanObjective::kThroughput: plan.cost = 1 / plan.tokens_s_many; break;
    case PlanObjective::kEnergy: plan.cost = weighted + weighted_idle_w * plan.request_s; break;
  }
  return plan;
}

}  // namespace shoal
