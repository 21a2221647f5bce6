// Where the running program's file is: for what lies beside it, and for who starts it again.
#pragma once

#include <string>

namespace shoal {

// Absolute, links followed; empty if the system does not say. Blocks for a few file operations.
std::string ProgramPath();

}  // namespace shoal
