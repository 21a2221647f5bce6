// A question to a loop from another thread, and its answer.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/loop.h"

namespace shoal {

// Runs `call` on `loop` and gives what it returns (not void); nothing when the loop stopped before. Blocks; never on
// the loop itself. `call` must be copyable.
template <typename F>
auto AskLoop(Loop& loop, F call) -> std::optional<decltype(call())> {
  using Value = decltype(call());
  auto promise = std::make_shared<std::promise<Value>>();
  std::future<Value> answer = promise->get_future();
  // The task alone holds the promise: a loop that drops the task breaks it.
  loop.Post([promise = std::move(promise), call = std::move(call)]() mutable { promise->set_value(call()); });
  try {
    return answer.get();
  } catch (const std::future_error&) { return std::nullopt; }
}

}  // namespace shoal
