// A GGUF file, or one in parts, that lies somewhere on this disk: hashed once, and used as it lies as long as it stays
// the same.
//
// Knows no store but for the record it keeps of a file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "weights/manifest.h"

namespace shoal {

struct LocalFile {
  std::string path;                    // absolute; of the first part
  std::uint64_t bytes = 0, inode = 0;  // of parts: their sum, and a hash over each one's inode, size and time
  std::int64_t time_ns = 0;            // last modified; of parts: the latest
  ModelId id{};
  // As far as one can know without reading it.
  bool SameFile(const LocalFile& other) const {
    return path == other.path && bytes == other.bytes && inode == other.inode && time_ns == other.time_ns;
  }
};

// `path`: of the file, or of any part. Errors: kNotFound, kIo.
Result<LocalFile> LookAtLocalFile(const std::string& path);
// Names the record of a path.
Digest LocalKey(const std::string& path);
// Errors: kNotFound, kCorrupt, kIo.
Result<LocalFile> ReadLocalRecord(const std::string& record_path);
Status WriteLocalRecord(const std::string& record_path, const LocalFile& file);
// Reads all of it. `progress` gets the bytes read so far; false cancels; may be empty.
// Errors: as OpenModelFile; kCancelled, kIo (also: it changed meanwhile).
Result<Manifest> HashLocalFile(const LocalFile& file, const std::function<bool(std::uint64_t)>& progress);

}  // namespace shoal
