// The registry's look-up and the Prometheus text exposition.
#include "base/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/check.h"

namespace shoal {
namespace {

// The fewest digits that read back as `v`.
std::string Number(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "+Inf" : "-Inf";
  char text[40];
  for (const int digits : {6, 15, 16, 17}) {
    std::snprintf(text, sizeof text, "%.*g", digits, v);
    if (std::strtod(text, nullptr) == v) break;
  }
  return text;
}

// HELP is one line: backslash and line feed are escaped.
std::string EscapedHelp(std::string_view help) {
  std::string out;
  for (const char c : help) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

bool IsMetricName(std::string_view name) {
  const auto is_valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') && std::all_of(name.begin(), name.end(), is_valid);
}

std::string SeriesName(const std::string& name, const std::string& labels, const std::string& extra = "") {
  std::string all = labels;
  if (!extra.empty()) all += (all.empty() ? "" : ",") + extra;
  return all.empty() ? name : name + "{" + all + "}";
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {
  SHOAL_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()));
}

void Histogram::Observe(double v) {
  if (std::isnan(v)) return;
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), v) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.Add(v);
}

MetricsRegistry::Family& MetricsRegistry::FamilyFor(std::string_view name, std::string_view help, Kind kind) {
  for (Family& family : families_) {
    if (family.name == name) {
      SHOAL_CHECK(family.kind == kind);
      return family;
    }
  }
  SHOAL_CHECK(IsMetricName(name));
  return families_.emplace_back(Family{std::string(name), EscapedHelp(help), kind, {}});
}

MetricsRegistry::Series* MetricsRegistry::Shown(Family& family, std::string_view labels) {
  for (Series& series : family.series) {
    if (series.labels != labels) continue;
    series.shown = true;
    return &series;
  }
  return nullptr;
}

void MetricsRegistry::KeepOnly(std::string_view name, const std::vector<std::string>& labels) {
  const std::lock_guard lock(mutex_);
  for (Family& family : families_) {
    if (family.name != name) continue;
    for (Series& series : family.series) {
      series.shown = std::find(labels.begin(), labels.end(), series.labels) != labels.end();
    }
  }
}

Counter& MetricsRegistry::GetCounter(std::string_view name, std::string_view help, std::string_view labels) {
  const std::lock_guard lock(mutex_);
  Family& family = FamilyFor(name, help, Kind::kCounter);
  if (const Series* const known = Shown(family, labels)) return counters_[known->index];
  family.series.push_back({std::string(labels), counters_.size()});
  return counters_.emplace_back();
}

Gauge& MetricsRegistry::GetGauge(std::string_view name, std::string_view help, std::string_view labels) {
  const std::lock_guard lock(mutex_);
  Family& family = FamilyFor(name, help, Kind::kGauge);
  if (const Series* const known = Shown(family, labels)) return gauges_[known->index];
  family.series.push_back({std::string(labels), gauges_.size()});
  return gauges_.emplace_back();
}

Histogram& MetricsRegistry::GetHistogram(std::string_view name, std::string_view help, std::vector<double> bounds,
                                         std::string_view labels) {
  const std::lock_guard lock(mutex_);
  Family& family = FamilyFor(name, help, Kind::kHistogram);
  if (const Series* const known = Shown(family, labels)) return histograms_[known->index];
  family.series.push_back({std::string(labels), histograms_.size()});
  return histograms_.emplace_back(std::move(bounds));
}

std::string MetricsRegistry::PrometheusText() const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const Family& family : families_) {
    const bool empty =
        std::none_of(family.series.begin(), family.series.end(), [](const Series& s) { return s.shown; });
    if (empty) continue;
    static constexpr const char* kKinds[] = {"counter", "gauge", "histogram"};
    out += "# HELP " + family.name + " " + family.help + "\n";
    out += "# TYPE " + family.name + " " + kKinds[static_cast<int>(family.kind)] + "\n";
    for (const Series& s : family.series) {
      if (!s.shown) continue;
      switch (family.kind) {
        case Kind::kCounter:
          out += SeriesName(family.name, s.labels) + " " + std::to_string(counters_[s.index].value()) + "\n";
          break;
        case Kind::kGauge:
          out += SeriesName(family.name, s.labels) + " " + Number(gauges_[s.index].value()) + "\n";
          break;
        case Kind::kHistogram: {
          const Histogram& h = histograms_[s.index];
          std::uint64_t cumulative = 0;
          for (std::size_t i = 0; i <= h.bounds().size(); ++i) {
            cumulative += h.count(i);
            const std::string bound = i < h.bounds().size() ? Number(h.bounds()[i]) : "+Inf";
            out += SeriesName(family.name + "_bucket", s.labels, "le=\"" + bound + "\"") + " " +
                   std::to_string(cumulative) + "\n";
          }
          out += SeriesName(family.name + "_sum", s.labels) + " " + Number(h.sum()) + "\n";
          out += SeriesName(family.name + "_count", s.labels) + " " + std::to_string(cumulative) + "\n";
          break;
        }
      }
    }
  }
  return out;
}

}  // namespace shoal
