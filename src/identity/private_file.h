// Small files that nobody else may read, written so that a crash leaves the old one or the new one.
//
// Knows nothing of what is in them. Every call blocks on the disk. Any thread, but two writers of one path must not
// meet.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "identity/crypto.h"

namespace shoal {

// Makes `folder` (mode 0700) and its parents when absent; narrows an existing one to 0700.
// Errors: kIo (not a folder, not ours, others may write to it, or the system refused).
Status MakePrivateFolder(const std::string& folder);

// The whole file; nothing when there is none. Errors: kIo (others may read or write it, not a regular file, or the
// system refused), kCorrupt (larger than `bytes_max`).
Result<std::optional<Bytes>> ReadPrivateFile(const std::string& path, std::size_t bytes_max);

// Replaces or makes the file, mode 0600: written beside its place, synced, renamed, and its folder synced.
// Errors: kIo; the old file is then as it was.
Status WritePrivateFile(const std::string& path, ByteSpan bytes);
Status WritePrivateText(const std::string& path, std::string_view text);
// The same without waiting for the disk: after a power cut it may be anything. Of what a node can do without.
Status WritePrivateHint(const std::string& path, std::string_view text);
// Of what a node can do without: empty where there is no such file, or it cannot be read.
std::string ReadPrivateText(const std::string& path, std::size_t bytes_max);

// Removes the file and syncs its folder; fine when there is none. Errors: kIo.
Status RemoveFile(const std::string& path);

// Takes the lock at `path` for as long as the descriptor returned is open; the system frees it however the process
// ends. Errors: kUnavailable (another process or another call holds it), kIo.
Result<int> LockFile(const std::string& path);

}  // namespace shoal
