// ggml calls one process-wide hook before it aborts; a thread-local depth says whether that hook may throw. The C
// frames between the assertion and the guard own nothing, and are compiled with unwind tables on every 64-bit target.
#include "engine/llama_guard.h"

#include <atomic>
#include <mutex>

#include "base/log.h"
#include "ggml.h"

namespace shoal {
namespace {

thread_local int t_depth = 0;
std::atomic<bool> g_guards{true};

void OnAbort(const char* message) {
  if (t_depth > 0 && g_guards) throw LlamaAbort(message);
  Log(LogLevel::kError, "llama", message);
}

}  // namespace

void LetAbortsEndTheProcess() { g_guards = false; }

LlamaGuard::LlamaGuard() {
  static std::once_flag once;
  std::call_once(once, [] { ggml_set_abort_callback(OnAbort); });
  ++t_depth;
}

LlamaGuard::~LlamaGuard() { --t_depth; }

}  // namespace shoal
