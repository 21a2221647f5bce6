// Works on one array of (token, logit, probability); every selection uses the total order of Better.
#include "engine/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace shoal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
constexpr std::size_t kFirstPrefix = 256;  // top-p on a whole vocabulary rarely needs more than these

}  // namespace

bool Candidates::Better(const Entry& a, const Entry& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// A heap of the k best seen so far, its worst on top: most logits cost one comparison.
void Candidates::SelectTopK(std::span<const float> all, std::size_t k) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i] == kForbidden) continue;
    const Entry entry{static_cast<TokenId>(i), all[i], 0};
    if (entries_.size() < k) {
      entries_.push_back(entry);
      std::push_heap(entries_.begin(), entries_.end(), Better);
    } else if (all[i] > entries_.front().logit) {  // equal: the earlier token stays
      std::pop_heap(entries_.begin(), entries_.end(), Better);
      entries_.back() = entry;
      std::push_heap(entries_.begin(), entries_.end(), Better);
    }
  }
  std::sort(entries_.begin(), entries_.end(), Better);
}

void Candidates::Softmax() {
  float largest = entries_.front().logit;
  for (const Entry& e : entries_) largest = std::max(largest, e.logit);
  double sum = 0;
  for (Entry& e : entries_) {
    e.p = std::exp(e.logit - largest);
    sum += e.p;
  }
  for (Entry& e : entries_) e.p = static_cast<float>(e.p / sum);
}

// Locally typical sampling (Meister et al., 2022): the tokens whose surprise is nearest to the entropy, until their
// probability exceeds typical_p. Leaves them in the order of Better.
void Candidates::KeepTypical(float typical_p) {
  Softmax();
  double entropy = 0;
  for (const Entry& e : entries_) {
    if (e.p > 0) entropy -= static_cast<double>(e.p) * std::log(static_cast<double>(e.p));
  }
  struct Distance {
    double from_entropy;
    Entry entry;
  };
  std::vector<Distance> distances;
  distances.reserve(entries_.size());
  for (const Entry& e : entries_) {
    distances.push_back({std::fabs(-std::log(static_cast<double>(e.p)) - entropy), e});
  }
  std::sort(distances.begin(), distances.end(), [](const Distance& a, const Distance& b) {
    return a.from_entropy != b.from_entropy ? a.from_entropy < b.from_entropy : Better(a.entry, b.entry);
  });
  double cumulative = 0;
  entries_.clear();
  for (const Distance& d : distances) {
    entries_.push_back(d.entry);
    cumulative += d.entry.p;
    if (cumulative > typical_p) break;
  }
  std::sort(entries_.begin(), entries_.end(), Better);
}

// The most likely tokens whose probabilities reach top_p together. An unsorted list is put in order only as far as
// that takes: a growing prefix.
void Candidates::KeepTopP(float top_p, bool sorted) {
  Softmax();
  std::size_t ordered = sorted ? entries_.size() : 0;
  double cumulative = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (i == ordered) {
      ordered = std::min(entries_.size(), ordered == 0 ? kFirstPrefix : ordered * 8);
      const auto from = entries_.begin() + static_cast<std::ptrdiff_t>(i);
      const auto to = entries_.begin() + static_cast<std::ptrdiff_t>(ordered);
      if (to != entries_.end()) std::nth_element(from, to, entries_.end(), Better);
      std::sort(from, to, Better);
    }
    cumulative += entries_[i].p;
    if (cumulative >= top_p) {
      entries_.resize(i + 1);
      return;
    }
  }
}

void FilterCandidates(std::span<const float> logits, const SamplingParams& params, Candidates& out) {
  SHOAL_CHECK(params.temperature > 0);
  auto& entries = out.entries_;
  entries.clear();
  bool sorted = true;
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < logits.size()) {
    out.SelectTopK(logits, static_cast<std::size_t>(params.top_k));
  } else {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] != kForbidden) entries.push_back({static_cast<TokenId>(i), logits[i], 0});
    }
    sorted = false;
  }
  if (!entries.empty() && params.typical_p < 1) {
    out.KeepTypical(params.typical_p);
    sorted = true;
  }
  if (!entries.empty() && params.top_p < 1) out.KeepTopP(params.top_p, sorted);

  float largest = kForbidden;
  for (const auto& e : entries) largest = std::max(largest, e.logit);
  const float smallest = params.min_p > 0 ? largest + std::log(params.min_p) : kForbidden;
  out.tokens.clear();
  out.logits.clear();
  out.probabilities.clear();
  for (const auto& e : entries) {
    // The best token always survives, whatever rounding does to `smallest` (min_p = 1).
    if (e.logit < smallest && e.logit != largest) continue;
    out.tokens.push_back(e.token);
    out.logits.push_back(e.logit);
    out.probabilities.push_back(std::exp((e.logit - largest) / params.temperature));
  }
}

}  // namespace shoal
