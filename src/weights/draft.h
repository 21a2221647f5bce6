// A model from a source that tells no hashes of its parts: a URL, the hub. It becomes a model of the store once all of
// it is here, and its whole-file hash is right where the source tells one.
//
// Its folder is named by what the source said of the file, so the same command goes on where the last one ended. What
// was finished once stays known by that name: then only ranges that are gone since are fetched, and each chunk is
// verified as it comes. A Draft locks its folder: one at a time fetches it, and what nobody fetches goes when the store
// needs room. Knows no HTTP. Any thread may call Begin and Finished.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/store.h"
#include "weights/whole_file.h"

namespace shoal {

class Draft {
 public:
  ~Draft();  // without a chunk, nothing is left of it
  // `key`: names the file at its source, in a state of it. `store` must outlive it. Makes room for all that is missing:
  // a model counts only when all of it is here. Errors: as DescribeRanges and WeightStore::MakeRoom; kUnavailable
  // (another one fetches it).
  static Result<std::unique_ptr<Draft>> Open(WeightStore& store, const std::string& key,
                                             std::span<const std::uint8_t> header, std::uint64_t file_bytes);
  // The header that an earlier Draft of this key had; empty: there was none.
  static std::vector<std::uint8_t> KnownHeader(const WeightStore& store, const std::string& key);

  const Manifest& manifest() const { return manifest_; }  // with the hashes that are known when it was opened
  bool was_finished() const { return was_finished_; }     // all hashes are known
  bool Has(std::size_t range) const;
  // Errors: as RangeWriter::Open.
  Result<std::shared_ptr<RangeWriter>> Begin(std::size_t range);
  // `finished` is what the range's writer returned.
  void Finished(std::size_t range, RangeWriter::Finished finished);

  // Every range is there (CHECK). Reads `files` once more, unless it was finished before. `progress` as of AddLocal.
  // Errors: kCorrupt (another hash: all of it is removed), kCancelled, kInvalidArgument (the name), kIo.
  Result<ModelId> Finish(const std::string& name, const std::string& origin, const std::vector<HashedFile>& files,
                         const std::function<bool(std::uint64_t)>& progress);

 private:
  Draft(WeightStore& store, const Digest& key);
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  Status MakeRoom();
  Status TakeFinished(std::size_t range);
  void Keep(std::size_t range, OwnedFd pin);

  WeightStore& store_;
  const Digest key_;
  const std::string folder_;
  bool was_finished_ = false;
  OwnedFd lock_;  // of the folder
  Manifest manifest_;
  mutable std::mutex mutex_;
  std::vector<OwnedFd> pins_;  // [ranges]; those that are there: an unfinished model loses nothing to its own rest
};

}  // namespace shoal
