// Names to addresses, by the system's resolver.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "discovery/endpoint.h"

namespace shoal {

// Literals as they are; names as all their addresses, IPv6 first where the system says so. Blocks for names.
// Errors: kInvalidArgument (no endpoint), kUnavailable (no such name, no resolver).
Result<std::vector<Endpoint>> Resolve(const std::string& text);
Result<std::vector<Endpoint>> Resolve(const Endpoint& endpoint);

}  // namespace shoal
