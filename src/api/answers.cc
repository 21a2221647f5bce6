// Two indexes over the same answers, swept by age.
#include "api/answers.h"

#include <algorithm>
#include <utility>

namespace shoal {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kSweepEvery{1'000};
constexpr std::size_t kThreadsMore = 1024;  // besides one an answer: the questions to other nodes

}  // namespace

Answers::Answers(MetricsRegistry& registry, const AnswersOptions& options)
    : options_(options),
      metrics_(registry),
      admission_(options.generations_max, metrics_.requests_in_flight),
      threads_(static_cast<std::size_t>(options.generations_max) + kThreadsMore),
      host_{metrics_,  admission_,    threads_,
            stopping_, options.grace, [this](const std::shared_ptr<Answer>& answer) { Changed(answer); }} {}

Answers::~Answers() { Stop(); }

void Answers::Stop() {
  stopping_ = true;
  Watch(nullptr);
  threads_.Join();
}

Answers::Claimed Answers::Claim(AnswerRecord record) {
  const std::lock_guard lock(mutex_);
  SweepLocked();
  if (record.key != AnswerKey{}) {
    const auto known = by_key_.find(record.key);
    if (known != by_key_.end()) return {known->second, false};
  }
  const auto answer = std::make_shared<Answer>(host_, std::move(record), false);
  const auto [at, is_new] = by_id_.emplace(answer->record().id, answer);
  if (is_new && answer->record().key != AnswerKey{}) by_key_.emplace(answer->record().key, answer);
  return {at->second, is_new};
}

std::shared_ptr<Answer> Answers::AddCopy(AnswerRecord record) {
  const std::lock_guard lock(mutex_);
  SweepLocked();
  const auto [at, is_new] = by_id_.try_emplace(record.id);
  if (!is_new) {
    // The node that answers has another keeper, and comes back to this one: what is here is the beginning.
    return at->second->is_copy() && at->second->record() == record ? at->second : nullptr;
  }
  at->second = std::make_shared<Answer>(host_, std::move(record), true);
  const AnswerKey& key = at->second->record().key;
  if (key != AnswerKey{}) by_key_.emplace(key, at->second);
  return at->second;
}

std::shared_ptr<Answer> Answers::Find(const AnswerAsk& ask) {
  const std::lock_guard lock(mutex_);
  SweepLocked();
  if (!ask.id.empty()) {
    const auto found = by_id_.find(ask.id);
    return found == by_id_.end() ? nullptr : found->second;
  }
  const auto found = by_key_.find(ask.key);
  return ask.key == AnswerKey{} || found == by_key_.end() ? nullptr : found->second;
}

void Answers::Drop(const std::shared_ptr<Answer>& answer) {
  {
    const std::lock_guard lock(mutex_);
    Erase(answer);
  }
  answer->GiveWay();
}

void Answers::Erase(const std::shared_ptr<Answer>& answer) {
  const AnswerRecord& record = answer->record();
  const auto by_id = by_id_.find(record.id);
  if (by_id != by_id_.end() && by_id->second == answer) by_id_.erase(by_id);
  const auto by_key = by_key_.find(record.key);
  if (by_key == by_key_.end() || by_key->second != answer) return;
  by_key_.erase(by_key);
  // A claim hides a copy of the answer that it gives way to.
  for (const auto& [id, other] : by_id_) {
    if (other->record().key == record.key) by_key_.emplace(record.key, other);
  }
}

void Answers::Sweep() {
  const std::lock_guard lock(mutex_);
  SweepLocked();
}

void Answers::SweepLocked() {
  const auto now = steady_clock::now();
  if (now - swept_ < kSweepEvery && by_id_.size() < options_.kept_max) return;
  swept_ = now;
  SweepKind(false, options_.kept);
  SweepKind(true, options_.copies);
}

void Answers::SweepKind(bool copies, milliseconds time) {
  std::vector<std::pair<steady_clock::time_point, std::shared_ptr<Answer>>> idle;
  std::size_t bytes = 0;
  for (const auto& [id, answer] : by_id_) {
    if (answer->in_use() || answer->is_copy() != copies) continue;
    idle.emplace_back(answer->last_changed(), answer);
    bytes += answer->bytes();
  }
  std::sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::size_t left = idle.size();
  const auto oldest_kept = steady_clock::now() - time;
  for (const auto& [changed, answer] : idle) {
    if (changed >= oldest_kept && left < options_.kept_max && bytes <= options_.kept_bytes_max) return;
    bytes -= std::min(bytes, answer->bytes());
    --left;
    Erase(answer);
  }
}

// ---- Changes --------------------------------------------------------------------------------------------------------

void Answers::Watch(std::function<void()> on_change) {
  const std::lock_guard lock(changes_mutex_);
  on_change_ = std::move(on_change);
  if (!on_change_) changes_.clear();
}

void Answers::Changed(const std::shared_ptr<Answer>& answer) {
  const std::lock_guard lock(changes_mutex_);
  if (!on_change_) return;
  changes_.emplace(answer.get(), answer);
  on_change_();
}

std::vector<std::shared_ptr<Answer>> Answers::TakeChanged() {
  const std::lock_guard lock(changes_mutex_);
  std::vector<std::shared_ptr<Answer>> changed;
  for (auto& [key, answer] : changes_) changed.push_back(std::move(answer));
  changes_.clear();
  return changed;
}

std::vector<std::shared_ptr<Answer>> Answers::InUse() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Answer>> used;
  for (const auto& [id, answer] : by_id_) {
    if (!answer->is_copy() && answer->in_use()) used.push_back(answer);
  }
  return used;
}

}  // namespace shoal
