// Rows of libllama's KV cache as bytes: out of one context, into another of the same layers and types.
//
// Goes through libllama's own state of a sequence: the rows are given to a sequence that no batch uses, and that one is
// read or written. Its layout, of the pinned version: magic, sequence, streams, cells (u32 each); for each cell its
// position and how many sequences it has (here none, since this one is beyond those that are counted); then types and
// data, which libllama checks when it reads them. For one pool of cells without a sliding window.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "llama.h"

namespace shoal {

// Errors: kUnsupported (libllama writes something else than described above).
Result<std::vector<std::uint8_t>> ReadCacheRows(llama_context* context, SequenceId sequence, Position from,
                                                Position to);
// Errors: kUnsupported; kCorrupt (not such rows, or no room for them): the cache is as before.
Status WriteCacheRows(llama_context* context, SequenceId sequence, Position from, Position to,
                      std::span<const std::uint8_t> rows);

}  // namespace shoal
