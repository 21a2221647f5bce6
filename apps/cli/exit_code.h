// What the program's exit code says; docs/cli.md has the table for people.
#pragma once

#include "base/result.h"

namespace shoal::cli {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,         // anything without a code of its own
  kExitUsage = 2,          // a wrong flag or value
  kExitModel = 3,          // the model is absent, damaged or of a kind that this build cannot run
  kExitMemory = 4,         // it does not fit into memory
  kExitUnavailable = 5,    // an address in use, a stage gone, a full queue
  kExitInterrupted = 130,  // Ctrl-C or SIGTERM, as shells count them
};

inline int ExitCodeFor(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kContextFull: return kExitUsage;
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported: return kExitModel;
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kKvFull: return kExitMemory;
    case ErrorCode::kUnavailable:
    case ErrorCode::kOverloaded: return kExitUnavailable;
    case ErrorCode::kCancelled: return kExitInterrupted;
    default: return kExitFailed;
  }
}

}  // namespace shoal::cli
