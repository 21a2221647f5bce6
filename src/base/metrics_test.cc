// Identity of metrics, the text exposition to the letter, and updates from several threads (run with TSan too).
#include "base/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

namespace shoal {
namespace {

TEST(MetricsRegistry, TheSameNameAndLabelsAreTheSameMetric) {
  MetricsRegistry registry;
  Counter& a = registry.GetCounter("shoal_tokens_total", "Tokens.", "stage=\"0\"");
  Counter& b = registry.GetCounter("shoal_tokens_total", "Tokens.", "stage=\"1\"");
  EXPECT_NE(&a, &b);
  for (int i = 0; i < 100; ++i) registry.GetCounter("other_" + std::to_string(i), "");  // references stay valid
  EXPECT_EQ(&registry.GetCounter("shoal_tokens_total", "", "stage=\"0\""), &a);
  a.Add(2);
  a.Add();
  EXPECT_EQ(a.value(), 3U);
  EXPECT_EQ(b.value(), 0U);
}

TEST(MetricsRegistry, WhatHasEndedIsNoLongerShown) {
  MetricsRegistry registry;
  Gauge& first = registry.GetGauge("speed", "Speeds.", "model=\"a\"");
  first.Set(1);
  registry.GetGauge("speed", "Speeds.", "model=\"b\"").Set(2);
  registry.GetGauge("nodes", "Nodes.").Set(3);
  registry.KeepOnly("speed", {"model=\"b\""});
  EXPECT_EQ(registry.PrometheusText(),
            "# HELP speed Speeds.\n# TYPE speed gauge\nspeed{model=\"b\"} 2\n"
            "# HELP nodes Nodes.\n# TYPE nodes gauge\nnodes 3\n");
  registry.KeepOnly("speed", {});
  EXPECT_EQ(registry.PrometheusText(), "# HELP nodes Nodes.\n# TYPE nodes gauge\nnodes 3\n");
  registry.KeepOnly("never seen", {});
  EXPECT_EQ(&registry.GetGauge("speed", "", "model=\"a\""), &first);  // asked for again
  EXPECT_EQ(registry.PrometheusText(),
            "# HELP speed Speeds.\n# TYPE speed gauge\nspeed{model=\"a\"} 1\n"
            "# HELP nodes Nodes.\n# TYPE nodes gauge\nnodes 3\n");
}

TEST(MetricsRegistry, PrometheusTextOfEveryKind) {
  MetricsRegistry registry;
  EXPECT_EQ(registry.PrometheusText(), "");
  registry.GetCounter("tokens_total", "Tokens sampled.").Add(18446744073709551615U);
  registry.GetGauge("slots", "Slots in use.", "stage=\"0\"").Set(1.5);
  registry.GetGauge("slots", "Slots in use.", "stage=\"1\"").Add(-0.1);
  Histogram& plain = registry.GetHistogram("wait_seconds", "Waits.", {0.1, 1, 2.5});
  for (const double v : {0.1, 0.25, 3.0, 2.5}) plain.Observe(v);
  registry.GetHistogram("step_seconds", "Steps.", {1}, "stage=\"0\"").Observe(2);
  EXPECT_EQ(registry.PrometheusText(),
            "# HELP tokens_total Tokens sampled.\n"
            "# TYPE tokens_total counter\n"
            "tokens_total 18446744073709551615\n"
            "# HELP slots Slots in use.\n"
            "# TYPE slots gauge\n"
            "slots{stage=\"0\"} 1.5\n"
            "slots{stage=\"1\"} -0.1\n"
            "# HELP wait_seconds Waits.\n"
            "# TYPE wait_seconds histogram\n"
            "wait_seconds_bucket{le=\"0.1\"} 1\n"
            "wait_seconds_bucket{le=\"1\"} 2\n"
            "wait_seconds_bucket{le=\"2.5\"} 3\n"
            "wait_seconds_bucket{le=\"+Inf\"} 4\n"
            "wait_seconds_sum 5.85\n"
            "wait_seconds_count 4\n"
            "# HELP step_seconds Steps.\n"
            "# TYPE step_seconds histogram\n"
            "step_seconds_bucket{stage=\"0\",le=\"1\"} 0\n"
            "step_seconds_bucket{stage=\"0\",le=\"+Inf\"} 1\n"
            "step_seconds_sum{stage=\"0\"} 2\n"
            "step_seconds_count{stage=\"0\"} 1\n");
}

TEST(MetricsRegistry, HelpStaysOnItsLine) {
  MetricsRegistry registry;
  registry.GetCounter("a", "one\ntwo \\ three");
  EXPECT_EQ(registry.PrometheusText(), "# HELP a one\\ntwo \\\\ three\n# TYPE a counter\na 0\n");
}

TEST(MetricsRegistry, NumbersReadBackExactly) {
  for (const double v : {0.1, 1.0 / 3, 1e300, 5e-324, 123456789.123, 4294967296.0}) {
    MetricsRegistry registry;
    registry.GetGauge("g", "").Set(v);
    const std::string text = registry.PrometheusText();
    EXPECT_EQ(std::strtod(text.substr(text.rfind(' ')).c_str(), nullptr), v) << text;
  }
  MetricsRegistry registry;
  registry.GetGauge("p", "").Set(std::numeric_limits<double>::infinity());
  registry.GetGauge("n", "").Set(-std::numeric_limits<double>::infinity());
  registry.GetGauge("x", "").Set(std::nan(""));
  const std::string text = registry.PrometheusText();
  EXPECT_NE(text.find("\np +Inf\n"), std::string::npos);
  EXPECT_NE(text.find("\nn -Inf\n"), std::string::npos);
  EXPECT_NE(text.find("\nx NaN\n"), std::string::npos);
}

TEST(Histogram, BoundsAreInclusiveAndNanIsIgnored) {
  Histogram histogram({1, 2});
  for (const double v : {-5.0, 1.0, 1.5, 2.0, 2.1, std::nan("")}) histogram.Observe(v);
  EXPECT_EQ(histogram.count(0), 2U);
  EXPECT_EQ(histogram.count(1), 2U);
  EXPECT_EQ(histogram.count(2), 1U);
  EXPECT_DOUBLE_EQ(histogram.sum(), 1.6);
}

TEST(Metrics, UpdatesFromSeveralThreadsAddUp) {
  constexpr int kThreads = 4, kEach = 5000;
  MetricsRegistry registry;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      Counter& counter = registry.GetCounter("c", "");
      Gauge& gauge = registry.GetGauge("g", "");
      Histogram& histogram = registry.GetHistogram("h", "", {0.5});
      for (int i = 0; i < kEach; ++i) {
        counter.Add();
        gauge.Add(1);
        histogram.Observe(i % 2);
        if (i % 1000 == 0) { EXPECT_FALSE(registry.PrometheusText().empty()); }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry.GetCounter("c", "").value(), static_cast<std::uint64_t>(kThreads * kEach));
  EXPECT_EQ(registry.GetGauge("g", "").value(), kThreads * kEach);
  Histogram& histogram = registry.GetHistogram("h", "", {0.5});
  EXPECT_EQ(histogram.count(0), static_cast<std::uint64_t>(kThreads * kEach / 2));
  EXPECT_EQ(histogram.count(1), static_cast<std::uint64_t>(kThreads * kEach / 2));
  EXPECT_EQ(histogram.sum(), kThreads * kEach / 2);
}

TEST(MetricsDeathTest, MisuseIsABug) {
  MetricsRegistry registry;
  registry.GetCounter("a", "");
  EXPECT_DEATH(registry.GetGauge("a", ""), "family.kind == kind");
  EXPECT_DEATH(registry.GetGauge("bad-name", ""), "IsMetricName");
  EXPECT_DEATH(registry.GetGauge("0name", ""), "IsMetricName");
  EXPECT_DEATH(registry.GetGauge("", ""), "IsMetricName");
  EXPECT_DEATH(Histogram({2, 1}), "is_sorted");
}

}  // namespace
}  // namespace shoal
