// Runs a small program of the system and takes what it prints: for facts that only a program can get, such as
// termux-battery-status. Knows nothing of what is printed.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace shoal {

inline constexpr std::size_t kCommandOutputBytesMax = 64U << 10;
inline constexpr std::chrono::milliseconds kCommandTimeMax{3000};

// The program's stdout if it ended with 0 within kCommandTimeMax; empty otherwise, also where there is no such program.
using CommandRunner = std::function<std::optional<std::string>(const std::vector<std::string>& command)>;

// Looks in PATH; no shell, no stdin, stderr dropped. What runs too long is killed, with all that it started in its
// process group. Blocks.
std::optional<std::string> RunCommand(const std::vector<std::string>& command);
// The same with another limit; killed too within kCancelLook of when `cancelled` says so (empty: never).
inline constexpr std::chrono::milliseconds kCancelLook{50};
std::optional<std::string> RunCommandFor(const std::vector<std::string>& command, std::chrono::milliseconds time_max,
                                         const std::function<bool()>& cancelled = {});

}  // namespace shoal
