// Routes libllama's log lines into base/log, and lets a caller pick up the errors of one call of its own thread.
//
// Knows nothing of what is being loaded or run.
#pragma once

#include <string>

namespace shoal {

// Makes libllama ready (time base, backends) and takes over its log. Any thread; only the first call does anything.
void InitLlama();

void TakeLlamaLine(int level, const char* text);  // libllama's callback; not for others

// While it lives, libllama's errors on this thread are kept here instead of being logged. Not nestable
// across threads; scopes on one thread may nest, the innermost gets the lines.
class LlamaErrors {
 public:
  LlamaErrors();
  ~LlamaErrors();
  LlamaErrors(const LlamaErrors&) = delete;
  LlamaErrors& operator=(const LlamaErrors&) = delete;
  // The error lines so far, joined by "; ", at most about 1 KiB; `otherwise` when there are none.
  std::string TextOr(std::string otherwise) const;

 private:
  friend void TakeLlamaLine(int level, const char* text);
  std::string text_;
  LlamaErrors* outer_;
};

}  // namespace shoal
