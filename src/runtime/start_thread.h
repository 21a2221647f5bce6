// A thread, or the error that the system has none left: where a peer or a client asks for one, that must end what it
// asked for and nothing else.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "base/result.h"
#include "base/thread_name.h"

namespace shoal {

// Runs `run` on a thread of its own, called `name` (at most 15 characters, of static storage). The caller joins it.
// Errors: kOverloaded.
template <typename Run>
Result<std::thread> StartThread(const char* name, Run run) {
  try {
    return std::thread([name, run = std::move(run)]() mutable {
      NameThisThread(name);
      run();
    });
  } catch (const std::system_error&) { return Error{ErrorCode::kOverloaded, "the system starts no more threads"}; }
}

}  // namespace shoal
