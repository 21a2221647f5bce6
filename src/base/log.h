// Log lines to stderr, one per call, safe from any thread. Knows nothing of files or rotation.
#pragma once

#include <string_view>

namespace shoal {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();

// Writes "HH:MM:SS.mmm LEVEL component: message\n" in one write. Blocks only on stderr.
void Log(LogLevel level, std::string_view component, std::string_view message);

}  // namespace shoal
