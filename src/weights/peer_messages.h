// What members ask each other about weights, and the answers: payloads of Weights frames. Bytes in and out, no I/O.
//
// docs/wire-format.md has the layouts. An answer's lengths are bounded by what was asked for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "weights/manifest.h"

namespace shoal {

inline constexpr std::uint32_t kManifestPieceBytesMax = 1U << 20;
inline constexpr std::size_t kWeightMessageBytesMax = kChunkBytesMax + 64;
inline constexpr std::size_t kRefusalBytesMax = 512;
inline constexpr std::size_t kFetchAskRangesMax = 4096;

struct ManifestAsk {
  ModelFingerprint fingerprint = 0;
  std::uint64_t offset = 0;  // a piece from here on
  bool operator==(const ManifestAsk&) const = default;
};
struct HaveAsk {
  ModelId id{};
  bool operator==(const HaveAsk&) const = default;
};
struct ChunkAsk {
  ModelId id{};
  std::uint32_t range = 0, chunk = 0;
  bool operator==(const ChunkAsk&) const = default;
};
// Of a sourced model, whose hashes become known as ranges come to whoever fetches them first.
struct RangesAsk {
  ModelId id{};
  bool operator==(const RangesAsk&) const = default;
};
struct HashesAsk {
  ModelId id{};
  std::uint32_t range = 0;
  bool operator==(const HashesAsk&) const = default;
};
// Ranges of a sourced model that whoever asks cannot get from its source: the other is to fetch them.
struct FetchAsk {
  ModelId id{};
  std::vector<std::uint32_t> ranges;  // at least one
  bool operator==(const FetchAsk&) const = default;
};
using WeightAsk = std::variant<ManifestAsk, HaveAsk, ChunkAsk, RangesAsk, HashesAsk, FetchAsk>;

struct ManifestPiece {
  ModelId id{};
  std::uint64_t total_bytes = 0;
  std::vector<std::uint8_t> bytes;
  bool operator==(const ManifestPiece&) const = default;
};
// One bit for each chunk, ranges in order, the lowest bit first.
struct HaveAnswer {
  std::vector<std::uint8_t> bits;
  bool operator==(const HaveAnswer&) const = default;
};
struct ChunkAnswer {
  std::vector<std::uint8_t> bytes;
  bool operator==(const ChunkAnswer&) const = default;
};
// What a member has to do with a range. kBegun: it wants it, and has some of it.
enum class RangeState : std::uint8_t { kNone = 0, kWanted = 1, kBegun = 2, kFetching = 3, kHere = 4 };
struct RangesAnswer {
  std::vector<RangeState> states;  // [ranges]
  bool operator==(const RangesAnswer&) const = default;
};
struct HashesAnswer {
  std::vector<Digest> chunks;
  bool operator==(const HashesAnswer&) const = default;
};
struct FetchAnswer {  // it does
  bool operator==(const FetchAnswer&) const = default;
};
struct Refusal {
  std::string text;
  bool operator==(const Refusal&) const = default;
};
using WeightAnswer =
    std::variant<ManifestPiece, HaveAnswer, ChunkAnswer, RangesAnswer, HashesAnswer, FetchAnswer, Refusal>;

std::vector<std::uint8_t> Encode(const WeightAsk& ask);
std::vector<std::uint8_t> Encode(const WeightAnswer& answer);
// Errors: kCorrupt.
Result<WeightAsk> ParseWeightAsk(std::span<const std::uint8_t> bytes);
Result<WeightAnswer> ParseWeightAnswer(std::span<const std::uint8_t> bytes);

}  // namespace shoal
