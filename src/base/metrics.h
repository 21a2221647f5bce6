// Counters, gauges and histograms, and their Prometheus text. Safe from any thread; a reading is not a snapshot.
//
// Text format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

class Counter {
 public:
  void Add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(double v) { value_.store(v, std::memory_order_relaxed); }
  void Add(double d) {
    double v = value_.load(std::memory_order_relaxed);
    while (!value_.compare_exchange_weak(v, v + d, std::memory_order_relaxed)) {}
  }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  // `bounds`: ascending (CHECK) upper bounds, each within its bucket, without +Inf.
  explicit Histogram(std::vector<double> bounds);
  // Ignores NaN.
  void Observe(double v);
  const std::vector<double>& bounds() const { return bounds_; }
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  double sum() const { return sum_.value(); }

 private:
  std::vector<double> bounds_;
  std::vector<std::atomic<std::uint64_t>> counts_;  // last: above every bound
  Gauge sum_;
};

// Owns metrics; references stay valid as long as the registry lives.
// `name` is [a-zA-Z_:][a-zA-Z0-9_:]*; `labels` is the inside of the braces, e.g. `stage="0"` (values already
// escaped), or empty. `help` may be any text.
// The same (name, labels) gives the same metric back; one name has one kind (CHECK).
class MetricsRegistry {
 public:
  Counter& GetCounter(std::string_view name, std::string_view help, std::string_view labels = "");
  Gauge& GetGauge(std::string_view name, std::string_view help, std::string_view labels = "");
  Histogram& GetHistogram(std::string_view name, std::string_view help, std::vector<double> bounds,
                          std::string_view labels = "");
  // Of `name`'s series only these stay in the text, until another is asked for again: what the rest were about has
  // ended.
  void KeepOnly(std::string_view name, const std::vector<std::string>& labels);
  // Families in order of first registration, each with its HELP and TYPE line.
  std::string PrometheusText() const;

 private:
  enum class Kind { kCounter, kGauge, kHistogram };
  struct Series {
    std::string labels;
    std::size_t index;
    bool shown = true;
  };
  struct Family {
    std::string name, help;
    Kind kind;
    std::vector<Series> series;
  };
  Family& FamilyFor(std::string_view name, std::string_view help, Kind kind);
  // The series with these labels, which is shown from now on; null: there is none yet.
  static Series* Shown(Family& family, std::string_view labels);

  mutable std::mutex mutex_;
  std::deque<Family> families_;
  std::deque<Counter> counters_;
  std::deque<Gauge> gauges_;
  std::deque<Histogram> histograms_;
};

}  // namespace shoal
