// One range on its way to the disk: chunks come in any order, from any source, and count only once they are verified.
//
// Two files of its own: the bytes, and (for a range whose hashes nobody told us) the hash of each chunk that was
// written. Opened again after a crash it reads what is there and believes only what its hash confirms, so there is
// nothing to repair. Knows no sources. Put may be called by several threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/files.h"
#include "weights/manifest.h"

namespace shoal {

class RangeWriter {
 public:
  ~RangeWriter();  // unfinished, it leaves its chunks for the next one; without a chunk, nothing
  struct Place {
    std::string bytes_path;  // of the unfinished bytes
    std::string sums_path;   // of the hashes; used when the manifest does not know them
    std::string blobs;       // the folder of finished ranges
  };

  // Takes the range's lock; another process or call that fetches the same range may have it. Reads and verifies what an
  // earlier writer left. Blocks on the disk.
  // Errors: kUnavailable (locked), kIo (also: no room on the disk, which is asked for at once).
  static Result<std::unique_ptr<RangeWriter>> Open(const Manifest& manifest, std::size_t range, Place place);

  std::uint64_t chunk_count() const { return have_.size(); }
  std::uint64_t ChunkBytes(std::uint64_t chunk) const;
  std::vector<std::uint64_t> Missing() const;             // chunks, ascending
  std::uint64_t bytes_had() const { return bytes_had_; }  // verified when it was opened

  // One chunk's bytes, all of them (kInvalidArgument otherwise). Errors: kCorrupt (not what the manifest says: the
  // source is wrong), kIo. After an error nothing is counted.
  Status Put(std::uint64_t chunk, std::span<const std::uint8_t> bytes);
  // A verified chunk, for a peer that wants it. Errors: kNotFound, kIo.
  Status Get(std::uint64_t chunk, std::span<std::uint8_t> out) const;

  struct Finished {
    std::vector<Digest> chunks;
    OwnedFd pin;  // as WeightStore::Pin's
  };
  // Every chunk is there (CHECK): puts the range among the finished ones, safe against loss of power; the file of
  // hashes stays. Nothing else may be called after. Errors: kIo; nothing is lost then.
  Result<Finished> Finish();

 private:
  RangeWriter() = default;
  RangeWriter(const RangeWriter&) = delete;
  RangeWriter& operator=(const RangeWriter&) = delete;
  Status Reread();

  Place place_;
  std::uint64_t bytes_ = 0;
  std::uint32_t chunk_bytes_ = 0;
  bool known_ = false, locked_ = false;
  OwnedFd data_, sums_;
  std::uint64_t bytes_had_ = 0;
  mutable std::mutex mutex_;
  std::vector<Digest> hashes_;  // [chunks]; expected, or of what was written
  std::vector<bool> have_;      // [chunks]; guarded by mutex_
};

}  // namespace shoal
