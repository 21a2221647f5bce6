// A shard presented as a read-only FILE*: its generated header, then byte ranges of the model.
//
// Knows nothing of GGUF or libllama. Nothing is copied ahead: each read goes to the model's source.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/shard.h"

namespace shoal {

class VirtualFile {
 public:
  // `shard` must outlive it. Errors: as TensorSource::Open.
  static Result<std::unique_ptr<VirtualFile>> Open(const Shard& shard);
  ~VirtualFile();  // closes file()
  VirtualFile(const VirtualFile&) = delete;
  VirtualFile& operator=(const VirtualFile&) = delete;

  // Seekable, read-only, with a buffer of 256 KiB.
  std::FILE* file() const { return file_; }
  // The error of the first read that failed; ok if none did. stdio itself reports no more than "error".
  const Status& status() const { return status_; }

  // What stdio calls. Up to `bytes` bytes at the current position; 0 at the end; -1 on errors.
  std::int64_t Read(char* out, std::uint64_t bytes);
  // The new position, or -1 for one before the start. `whence` as of fseek.
  std::int64_t Seek(std::int64_t offset, int whence);

 private:
  explicit VirtualFile(const Shard& shard) : shard_(shard) {}

  const Shard& shard_;
  std::unique_ptr<TensorReader> reader_;
  std::FILE* file_ = nullptr;
  std::vector<char> buffer_;  // of file_
  std::uint64_t position_ = 0;
  Status status_;
};

}  // namespace shoal
