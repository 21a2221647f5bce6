// The API's own metrics, and the permit that a request holds while it generates.
//
// Names start with shoal_ and are listed in docs/api.md.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <string>

#include "base/metrics.h"

namespace shoal {

class ApiMetrics {
 public:
  explicit ApiMetrics(MetricsRegistry& registry);

  // `route` is one of a fixed set, never the client's bytes.
  void CountRequest(const std::string& route, int status);

  Counter& prompt_tokens;
  Counter& cached_tokens;
  Counter& completion_tokens;
  Counter& disconnects;       // clients that left before the answer's end
  Gauge& requests_in_flight;  // chat and text completions being answered
  Gauge& connections;
  Histogram& first_token_seconds;
  Histogram& request_seconds;

 private:
  MetricsRegistry& registry_;
};

// Counts generations against a limit. Any thread.
class Admission {
 public:
  Admission(int generations_max, Gauge& in_flight) : generations_max_(generations_max), in_flight_(in_flight) {}

  // Held while a request generates; gives its places back when destroyed.
  class Permit {
   public:
    Permit(Admission* owner, int generations) : owner_(owner), generations_(generations) { owner_->in_flight_.Add(1); }
    Permit(Permit&& other) noexcept : owner_(other.owner_), generations_(other.generations_) { other.owner_ = nullptr; }
    Permit& operator=(Permit&&) = delete;
    ~Permit() {
      if (owner_ == nullptr) return;
      owner_->generations_.fetch_sub(generations_);
      owner_->in_flight_.Add(-1);
    }

   private:
    Admission* owner_;
    int generations_;
  };

  int generations_max() const { return generations_max_; }
  // Empty when `generations` more would pass the limit. Never blocks.
  std::optional<Permit> TryEnter(int generations) {
    if (generations_.fetch_add(generations) + generations > generations_max_) {
      generations_.fetch_sub(generations);
      return std::nullopt;
    }
    return Permit(this, generations);
  }

 private:
  const int generations_max_;
  Gauge& in_flight_;
  std::atomic<int> generations_{0};
};

}  // namespace shoal
