// Tasks ordered by (due time, sequence number): what both loops run from. No lock, no clock, no thread.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <unordered_map>
#include <utility>

#include "runtime/clock.h"

namespace shoal {

class TaskQueue {
 public:
  using Task = std::function<void()>;
  using Id = std::uint64_t;

  // Tasks of the same due time leave in the order they came. Never 0.
  Id Add(TimeUs due, Task task) {
    const Id id = ++last_id_;
    tasks_.emplace(Key{due, id}, std::move(task));
    due_.emplace(id, due);
    return id;
  }

  // The task, so that the caller may destroy it outside its lock; empty when it ran or never was.
  Task Remove(Id id) {
    const auto found = due_.find(id);
    if (found == due_.end()) return {};
    const auto it = tasks_.find(Key{found->second, id});
    Task task = std::move(it->second);
    tasks_.erase(it);
    due_.erase(found);
    return task;
  }

  bool empty() const { return tasks_.empty(); }
  std::size_t size() const { return tasks_.size(); }
  // Precondition of both: not empty.
  TimeUs FirstDue() const { return tasks_.begin()->first.first; }
  Task PopFirst() { return Remove(tasks_.begin()->first.second); }

  // The due time `delay` after `now`: never before now, never past the end of time.
  static TimeUs DueAfter(TimeUs now, DurationUs delay) {
    if (delay <= 0) return now;
    constexpr TimeUs kEnd = std::numeric_limits<TimeUs>::max();
    return delay > kEnd - now ? kEnd : now + delay;
  }

 private:
  using Key = std::pair<TimeUs, Id>;
  std::map<Key, Task> tasks_;
  std::unordered_map<Id, TimeUs> due_;  // to find a task by its id alone
  Id last_id_ = 0;
};

}  // namespace shoal
