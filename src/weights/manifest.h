// What a model is made of: its GGUF header, and for each range of its data the hashes of its chunks.
//
// A *range* is what is kept, fetched and evicted as a whole: the tensors of one layer, the token embeddings, the output
// head, and what every stage needs. Ranges follow from the header by a fixed rule, so a manifest cannot say anything
// about files or offsets that the header does not. A *chunk* is what is verified as a whole.
//
// A *sourced* manifest says where on the network the bytes are instead of what their hashes are: nobody has read them
// yet. Its id is of what it says, and stays as hashes become known. Knows no store and no peers; pure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "identity/crypto.h"
#include "model/model_info.h"
#include "model/split_gguf.h"

namespace shoal {

inline constexpr std::uint64_t kManifestBytesMax = 256ULL << 20;
inline constexpr std::uint64_t kModelBytesMax = 4ULL << 40;
inline constexpr std::uint32_t kChunkBytesMin = 1U << 20, kChunkBytesMax = 32U << 20;
inline constexpr std::size_t kSourceTextBytesMax = 8192;  // of a URL, of an ETag
inline constexpr std::uint64_t kChunksAimed = 32768;      // chunks grow so that a model has about as many at most

enum class RangeKind : std::uint8_t { kShared = 0, kEmbedding = 1, kOutput = 2, kLayer = 3 };

// Consecutive bytes of the model file.
struct Extent {
  std::uint64_t offset = 0, bytes = 0;
  bool operator==(const Extent&) const = default;
};

struct WeightRange {
  RangeKind kind = RangeKind::kShared;
  std::int32_t layer = 0;       // of kLayer
  std::vector<Extent> extents;  // ascending, disjoint; the range's bytes are theirs one after the other
  std::uint64_t bytes = 0;      // of all extents
  std::vector<Digest> chunks;   // SHA-256 of each; empty: not known yet
  bool known() const { return !chunks.empty() || bytes == 0; }
  std::string Name() const;  // "layer 7", "embeddings", "output", "shared tensors"
};

// A file of a model at its server, in one state: the only one, or one part.
struct SourceFile {
  std::string url;
  std::uint64_t bytes = 0;
  std::string etag;              // empty: the server says none
  std::optional<Digest> sha256;  // of all of it, where the hub says it
  bool operator==(const SourceFile&) const = default;
};

struct Manifest {
  std::vector<std::uint8_t> header;  // the file's bytes up to its data
  std::uint64_t file_bytes = 0;
  std::uint32_t chunk_bytes = 0;
  std::vector<WeightRange> ranges;  // shared, embeddings, output, layers ascending; only those with bytes
  std::vector<SourceFile> sources;  // of a sourced manifest, else empty
  std::vector<PartExtent> extents;  // of a sourced manifest: where the model's bytes are in `sources`
  bool sourced() const { return !sources.empty(); }
  std::uint64_t ChunkCount(std::size_t range) const;
  std::uint64_t ChunksBefore(std::size_t range) const;  // of all ranges before it; of ranges.size(): of all
  std::uint64_t ChunkBytes(std::size_t range, std::uint64_t chunk) const;
  bool known() const;  // all hashes
};

// The manifest of a model without its hashes. Every byte after the header is in exactly one range; padding goes with
// the tensor before it. `header` is the file's beginning, with more or less behind it than the header.
// Errors: as ParseGguf and DescribeModel; kUnsupported (larger than kModelBytesMax).
Result<Manifest> DescribeRanges(std::span<const std::uint8_t> header, std::uint64_t file_bytes);

// The model's header as its manifest has it. `name` is for messages. `source` may be null.
Result<std::shared_ptr<const ModelFile>> ModelOf(const Manifest& manifest, const std::string& name,
                                                 std::shared_ptr<const TensorSource> source);

// Bytes of a manifest whose hashes are all known, or that is sourced (CHECK), and back: of a sourced one without any
// hashes. Errors: kCorrupt, kUnsupported (a later version), as DescribeRanges. Nothing is allocated that the bytes do
// not justify.
std::vector<std::uint8_t> EncodeManifest(const Manifest& manifest);
Result<Manifest> ParseManifest(std::span<const std::uint8_t> bytes);

// The SHA-256 of the encoded manifest: equal for equal files, however they came here; of sourced ones, for equal states
// of files at the same place.
using ModelId = Digest;
// What placements call a model: of its header and size alone, so that it costs nothing to know. Never 0.
using ModelFingerprint = std::uint64_t;
ModelFingerprint FingerprintOf(std::span<const std::uint8_t> header, std::uint64_t file_bytes);
Result<ModelFingerprint> FingerprintOf(const ModelFile& model);  // reads its header once more. Errors: as TensorReader

// What names a range's bytes: equal for equal bytes, also of different models. Precondition (CHECK): range.known().
Digest BlobId(const WeightRange& range, std::uint32_t chunk_bytes);

// Lower-case, 64 digits; and back (false: it is none).
std::string HexOf(const Digest& digest);
bool ParseHex(std::string_view text, Digest& digest);

// Calls `piece(file offset, bytes)` for the parts of the file that [offset, offset + bytes) of a range is, in order.
template <typename F>
void ForExtents(const WeightRange& range, std::uint64_t offset, std::uint64_t bytes, F piece) {
  for (const Extent& extent : range.extents) {
    if (bytes == 0) return;
    if (offset >= extent.bytes) {
      offset -= extent.bytes;
      continue;
    }
    const std::uint64_t n = bytes < extent.bytes - offset ? bytes : extent.bytes - offset;
    piece(extent.offset + offset, n);
    bytes -= n;
    offset = 0;
  }
}

}  // namespace shoal
