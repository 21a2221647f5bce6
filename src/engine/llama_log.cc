// libllama has one process-wide log callback; a thread-local pointer sends a thread's errors to its LlamaErrors.
#include "engine/llama_log.h"

#include <mutex>
#include <string_view>

#include "base/log.h"
#include "engine/cpu_kernels.h"
#include "llama.h"

namespace shoal {
namespace {

constexpr std::size_t kErrorBytesMax = 1024;
thread_local LlamaErrors* t_errors = nullptr;

void OnLine(ggml_log_level level, const char* text, void* /*user*/) { TakeLlamaLine(static_cast<int>(level), text); }

}  // namespace

void TakeLlamaLine(int level, const char* text) {
  std::string_view line = text == nullptr ? "" : text;
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  if (line.empty() || line == ".") return;
  if (t_errors != nullptr && level == GGML_LOG_LEVEL_ERROR) {
    std::string& kept = t_errors->text_;
    if (!kept.empty()) kept += "; ";
    if (kept.size() < kErrorBytesMax) kept.append(line.substr(0, kErrorBytesMax - kept.size()));
    return;
  }
  switch (level) {
    case GGML_LOG_LEVEL_ERROR: return Log(LogLevel::kError, "llama", line);
    case GGML_LOG_LEVEL_WARN: return Log(LogLevel::kInfo, "llama", line);
    default: break;
  }
  // Which of its kernels KleidiAI takes is nowhere else to be seen.
  Log(line.starts_with("kleidiai: ") ? LogLevel::kInfo : LogLevel::kDebug, "llama", line);
}

void InitLlama() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(OnLine, nullptr);
    LoadCpuKernelsOnce();  // first: libllama would look for backends itself, where it likes
    llama_backend_init();
  });
}

LlamaErrors::LlamaErrors() : outer_(t_errors) { t_errors = this; }
LlamaErrors::~LlamaErrors() { t_errors = outer_; }

std::string LlamaErrors::TextOr(std::string otherwise) const { return text_.empty() ? otherwise : text_; }

}  // namespace shoal
