// A layer range as a GGUF of its own that exists nowhere: a generated header, and the byte ranges of the real file.
//
// Pure bookkeeping, no llama.h. engine/virtual_file.h presents it as a FILE*.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/model_info.h"

namespace shoal {

// One piece of the virtual file. source_offset < 0: zero bytes (padding and dummy tensors).
struct ShardSegment {
  std::uint64_t offset = 0;  // in the virtual file; segments are consecutive and ascending
  std::uint64_t bytes = 0;
  std::int64_t source_offset = -1;  // in the model file, wherever its bytes are
};

// One tensor of the shard.
struct ShardTensor {
  std::string name;
  std::uint64_t bytes = 0;
  std::int64_t source_offset = -1;  // as of a segment
  bool unread = false;              // zeros that nothing reads: they need no memory
};

// How the last shard carries the vocabulary matrices.
enum class ShardHead {
  // Only the output head is real. `output.weight` is there even if the model ties it to token_embd; token_embd is
  // zeros of the cheapest type, since input embeddings are looked up elsewhere. Most architectures load this.
  kSeparate,
  // As the model has them.
  kAsStored,
};

struct Shard {
  std::shared_ptr<const ModelFile> model;
  LayerRange layers;
  bool is_last = false;
  std::vector<std::uint8_t> header;    // GGUF header, at offset 0
  std::vector<ShardSegment> segments;  // after the header
  std::uint64_t bytes = 0;             // of the virtual file
  std::uint64_t weight_bytes = 0;      // of its real tensors
  std::vector<ShardTensor> tensors;    // in the order of the header; none of HeaderFile
};

// A shard never has the tokenizer (engine/vocabulary.h has it): on the last shard only the number of tokens is right,
// on the others it is kDummyVocabulary.
// Errors: kInvalidArgument, kUnsupported (the split rules forbid it), kCorrupt.
// The whole model as one shard (layers = all) is always allowed.
Result<Shard> MakeShard(std::shared_ptr<const ModelFile> model, LayerRange layers,
                        ShardHead head = ShardHead::kSeparate);

// The model's header as it is, and zeros in place of its tensors, which need not be here: for a reader that wants the
// header alone, and whose buffer may read on behind it.
Shard HeaderFile(std::shared_ptr<const ModelFile> model);

inline constexpr std::uint64_t kDummyVocabulary = 32;

}  // namespace shoal
