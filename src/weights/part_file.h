// A part of a model as one file: its manifest, and the ranges that one stage needs. For devices that are prepared by
// cable or card; docs/wire-format.md has the layout.
//
// Knows no stages: who writes one says which ranges. Everything that is read is verified against the manifest in the
// file; whose manifest that is nobody can say. Blocks on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/store.h"

namespace shoal {

struct PartHead {
  std::string name;  // of the model
  Manifest manifest;
  std::vector<std::uint32_t> ranges;  // of the manifest, ascending
  std::uint64_t data_offset = 0;      // in the file: their bytes, one range after the other, to its end
  std::uint64_t file_bytes = 0;       // of a file with this head
};

// Bytes of it read or written so far; false cancels. May be empty.
using PartProgress = std::function<bool(std::uint64_t)>;

bool IsPartFile(const std::string& path);
// `bytes`: the file's beginning, at least the head. Errors: kCorrupt, kUnsupported (a later version).
Result<PartHead> ParsePartHead(std::span<const std::uint8_t> bytes);

// Writes `ranges` of a model, all of which are in `store`, to `path`, which appears once it is whole. Returns its size.
// Errors: as WeightStore::ReadChunk; kCancelled, kIo.
Result<std::uint64_t> WritePartFile(const WeightStore& store, const StoredModel& model,
                                    const std::vector<std::size_t>& ranges, const std::string& path,
                                    const PartProgress& progress);
// Takes a part into `store`, under the model's name in it unless `name` is given. Errors: as ParsePartHead and
// WeightStore::Begin; kCorrupt (also: a wrong byte), kNotFound, kCancelled, kIo.
Result<std::string> TakePartFile(WeightStore& store, const std::string& path, const std::string& name,
                                 const PartProgress& progress);

}  // namespace shoal
