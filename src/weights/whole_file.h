// Files as their source has them, hashed out of a model's bytes: what the source says of a whole file can be verified
// only where all of it is.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/tensor_source.h"
#include "weights/http.h"
#include "weights/range_pull.h"
#include "weights/store.h"

namespace shoal {

// A file as its source has it, out of bytes of the model: `head`, then `extents` of the model, then `tail`.
struct HashedFile {
  std::string name;
  std::vector<std::uint8_t> head, tail;  // of a part; empty where the file is the model
  std::vector<Extent> extents;
  Digest sha256{};  // of all of it
};

// File `index` of a model's, whose hash is told. `head`: its first bytes as far as they are known; what else of it is
// no weights is fetched. Errors: kCorrupt (too much of it is none), as HttpFile::Read.
Result<HashedFile> HashedFileOf(const RemoteBytes& from, std::size_t index, std::span<const std::uint8_t> head,
                                const HttpOptions& http);

// `done` grows by the bytes that were read of the model, and `progress` gets it; false cancels; may be empty.
// Errors: as TensorReader::Read; kCancelled.
Result<Digest> HashFile(const HashedFile& file, TensorReader& reader, std::uint64_t& done,
                        const std::function<bool(std::uint64_t)>& progress);

// A sourced model all of which is in `store`, against what its source says of its files; the little of a part that is
// no weights is fetched. Nothing where the source says no hashes. `cancelled` may be empty.
// Errors: kCorrupt (other bytes), kCancelled, as HttpFile::Read.
Status CheckWholeFiles(const std::shared_ptr<const WeightStore>& store, const StoredModel& model,
                       const HttpOptions& http);

}  // namespace shoal
