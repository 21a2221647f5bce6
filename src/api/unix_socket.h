// The path of a Unix socket: what may be there before a server binds to it, and how long it may be.
//
// Knows no HTTP.
#pragma once

#include <string>

#include "base/result.h"

namespace shoal {

// Errors: kInvalidArgument (longer than a socket address holds: about 100 bytes).
Status CheckSocketPath(const std::string& path);

// Whether a server accepts connections there. Blocks shortly. False also for a path that is no socket's.
bool SomebodyListens(const std::string& path);

// Makes `path` free to bind to: what a server that died left there is removed. Blocks shortly.
// Errors: as CheckSocketPath; kUnavailable (a server listens there, or something that is no socket is there); kIo.
Status FreeSocketPath(const std::string& path);

}  // namespace shoal
