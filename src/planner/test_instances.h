// Made-up clusters and models for tests and benchmarks of the planner, and the plan that trying everything finds.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "planner/plan.h"

namespace shoal {

// The same on every system, unlike the standard library's distributions.
class InstanceRng {
 public:
  explicit InstanceRng(std::uint64_t seed) : engine_(seed) {}
  double Uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  double LogUniform(double low, double high) { return std::exp(Uniform(std::log(low), std::log(high))); }
  int Int(int low, int high) { return low + static_cast<int>(engine_() % static_cast<std::uint64_t>(high - low + 1)); }

 private:
  std::mt19937_64 engine_;
};

struct InstanceOptions {
  int devices_min = 1, devices_max = 7;
  int layers_min = 1, layers_max = 9;
  double model_bytes_min = 2e9, model_bytes_max = 20e9;
  bool even_layers = false;
};

// Phones to desktops (1 to 16 GB, 5 to 100 GB/s) on links from a bad Wi-Fi to a good cable. Does not always fit.
inline PlanInput RandomInstance(InstanceRng& rng, const InstanceOptions& options) {
  PlanInput input;
  const int devices = rng.Int(options.devices_min, options.devices_max);
  const int layers = rng.Int(options.layers_min, options.layers_max);
  const double layer = rng.LogUniform(options.model_bytes_min, options.model_bytes_max) / layers;
  for (int i = 0; i < layers; ++i) {
    const double uneven = options.even_layers ? 1 : rng.Uniform(0.8, 1.25);
    input.model.layer_bytes.push_back(static_cast<std::uint64_t>(layer * uneven));
    input.model.kv_bytes.push_back(static_cast<std::uint64_t>(rng.Int(1, 4)) * 1024);
    if (i > 0 && (options.even_layers || rng.Uniform(0, 1) < 0.9)) input.model.cuts.push_back(i);
  }
  if (options.even_layers) std::fill(input.model.kv_bytes.begin(), input.model.kv_bytes.end(), 4096);
  input.model.output_bytes = static_cast<std::uint64_t>(rng.Uniform(0, 0.6e9));
  input.model.hidden_bytes = static_cast<std::uint64_t>(rng.Int(1, 8)) * 2048;
  std::vector<double> latency, speed;
  for (int i = 0; i < devices; ++i) {
    PlanDevice device;
    device.name = "d" + std::to_string(i);
    device.memory_bytes = static_cast<std::uint64_t>(rng.LogUniform(1e9, 16e9));
    device.decode_bytes_s = rng.LogUniform(5e9, 100e9);
    device.prefill_bytes_s = device.decode_bytes_s * rng.Uniform(0.05, 0.7);
    device.kv_bytes_s = device.decode_bytes_s;
    device.pass_overhead_s = rng.LogUniform(5e-5, 2e-3);
    device.token_s = device.pass_overhead_s * 1.5;
    device.may_be_head = rng.Uniform(0, 1) < 0.9;
    input.devices.push_back(device);
    latency.push_back(rng.LogUniform(2e-4, 8e-3));
    speed.push_back(rng.LogUniform(2e6, 120e6));
  }
  for (int i = 0; i < devices; ++i) {
    for (int j = 0; j < devices; ++j) {
      const auto from = static_cast<std::size_t>(i), to = static_cast<std::size_t>(j);
      input.links.push_back({(latency[from] + latency[to]) / 2 * rng.Uniform(0.8, 1.2),
                             std::min(speed[from], speed[to]) * rng.Uniform(0.8, 1)});
    }
  }
  input.workload = {rng.Int(1, 2048), rng.Int(1, 512), rng.Int(1, 64), rng.Int(512, 8192)};
  input.policy.objective = rng.Uniform(0, 1) < 0.5 ? PlanObjective::kLatency : PlanObjective::kThroughput;
  return input;
}

// The same with powers of phones to desktops, on batteries or not, to be planned for the least energy.
inline PlanInput RandomEnergyInstance(InstanceRng& rng, const InstanceOptions& options) {
  PlanInput input = RandomInstance(rng, options);
  input.policy.objective = PlanObjective::kEnergy;
  input.policy.speed_share_min = rng.Uniform(0.3, 1);
  input.policy.battery_weight = rng.Uniform(0, 1) < 0.5 ? 1 : 3;
  for (PlanDevice& device : input.devices) {
    device.idle_w = rng.LogUniform(0.2, 10);
    device.active_w = rng.LogUniform(1, 40);
    device.on_battery = rng.Uniform(0, 1) < 0.5;
  }
  return input;
}

// Every order of every set of devices with every allowed cut, judged one by one: independent of the searches.
class BruteForce {
 public:
  explicit BruteForce(const PlanInput& input) : input_(input), used_(input.devices.size(), false) {
    places_.push_back(0);
    places_.insert(places_.end(), input.model.cuts.begin(), input.model.cuts.end());
    places_.push_back(static_cast<std::int32_t>(input.model.layer_bytes.size()));
    if (input.policy.objective == PlanObjective::kEnergy) {
      PlanInput fast = input;
      fast.policy.objective = PlanObjective::kLatency;
      request_s_max_ = BruteForce(fast).best().value_or(0) / input.policy.speed_share_min * (1 + 1e-12);
    }
    Extend(0);
  }
  // Empty if nothing fits.
  const std::optional<double>& best() const { return best_; }

 private:
  bool Fits(std::size_t device, std::size_t from, std::size_t to) const {
    double bytes = static_cast<double>(input_.policy.stage_bytes);
    for (std::int32_t layer = places_[from]; layer < places_[to]; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      bytes += static_cast<double>(input_.model.layer_bytes[at]) +
               static_cast<double>(input_.model.kv_bytes[at]) * input_.workload.context_tokens;
    }
    if (from == 0) bytes += static_cast<double>(input_.model.head_bytes);
    bytes += static_cast<double>(to + 1 == places_.size() ? input_.model.output_bytes : input_.model.sent_bytes);
    return bytes <= static_cast<double>(input_.devices[device].memory_bytes) * (1 - input_.policy.memory_headroom);
  }

  void Extend(std::size_t from) {
    for (std::size_t device = 0; device < used_.size(); ++device) {
      if (used_[device] || (from == 0 && !input_.devices[device].may_be_head)) continue;
      used_[device] = true;
      for (std::size_t to = from + 1; to < places_.size() && Fits(device, from, to); ++to) {
        stages_.push_back({static_cast<std::int32_t>(device), {places_[from], places_[to]}});
        if (to + 1 < places_.size()) {
          Extend(to);
        } else if (static_cast<std::int32_t>(stages_.size()) >= input_.policy.stages_min) {
          const auto plan = JudgePlan(input_, stages_);
          const bool counts = plan.ok() && plan->request_s <= request_s_max_;
          if (counts && (!best_ || plan->cost < *best_)) best_ = plan->cost;
        }
        stages_.pop_back();
      }
      used_[device] = false;
    }
  }

  const PlanInput& input_;
  std::vector<bool> used_;
  std::vector<std::int32_t> places_;
  std::vector<PlanStage> stages_;
  double request_s_max_ = std::numeric_limits<double>::infinity();
  std::optional<double> best_;
};

}  // namespace shoal
