// Turns ggml's aborts into exceptions while a call into libllama runs, so that a broken model file cannot end the
// process.
//
// ggml checks many facts of a model with an assertion that ends in abort(). Inside a guard, on the guard's thread, the
// assertion throws instead; elsewhere (other threads, no guard) it aborts as ever.
#pragma once

#include <stdexcept>
#include <string>

namespace shoal {

// What a guarded abort throws. libllama's own handlers may catch it and report failure the usual way.
class LlamaAbort : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// From here on guards do nothing: an abort ends the process, as a process made for a device wants it (offload/). A
// throw through a driver's own locks could leave it hanging instead.
void LetAbortsEndTheProcess();

// While it lives, aborts of this thread throw LlamaAbort. Guards may nest. What was being built when it threw must not
// be used again.
class LlamaGuard {
 public:
  LlamaGuard();
  ~LlamaGuard();
  LlamaGuard(const LlamaGuard&) = delete;
  LlamaGuard& operator=(const LlamaGuard&) = delete;
};

}  // namespace shoal
