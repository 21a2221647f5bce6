// Where the bytes of a model file are: in that file, or in pieces somewhere else. Offsets are always those of the file.
//
// Knows no tensors and no layers: whoever reads has the header, and with it the offsets.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace shoal {

// Reads on behalf of one user, one thread at a time. What it has read stays readable as long as it lives, also when
// the file is unlinked meanwhile.
class TensorReader {
 public:
  virtual ~TensorReader() = default;
  // Fills `out` from byte `offset` of the model file on. Blocks on the disk.
  // Errors: kNotFound (these bytes are not on this node), kIo; the message names the file and the byte.
  virtual Status Read(std::uint64_t offset, std::span<std::uint8_t> out) = 0;
  // Whether Read of the byte at `offset` would wait for the disk, as far as the system tells.
  virtual bool Waits(std::uint64_t /*offset*/) { return false; }
};

// Any thread.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Errors: kNotFound, kIo (also: the file is not the one whose header was read).
  virtual Result<std::unique_ptr<TensorReader>> Open() const = 0;
};

// One GGUF file of `file_bytes` bytes.
std::shared_ptr<const TensorSource> MakeFileSource(std::string path, std::uint64_t file_bytes);

// The same for an open file.
bool WaitsAt(int fd, std::uint64_t offset);
// Fills `out` from byte `offset` of the open file `fd`; `name` is for the message. Errors: kIo.
Status ReadAt(int fd, const std::string& name, std::uint64_t offset, std::span<std::uint8_t> out);

}  // namespace shoal
