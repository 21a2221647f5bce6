// A kind, then fixed fields, then bytes to the end.
#include "weights/peer_messages.h"

#include <cstring>

#include "wire/bytes.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;

enum Kind : std::uint8_t { kManifest = 1, kHave = 2, kChunk = 3, kRefusal = 4, kRanges = 5, kHashes = 6, kFetch = 7 };

Error Broken() { return {ErrorCode::kCorrupt, "a message about weights breaks its format"}; }

// Apart, since gcc 12 warns of what it thinks an empty vector does when it inlines all of it.
[[gnu::noinline]] Bytes Started() {
  Bytes bytes;
  bytes.reserve(64);
  return bytes;
}

void PutDigest(ByteWriter& out, const Digest& digest) { out.PutArray(std::span<const std::uint8_t>(digest)); }

Digest GetDigest(ByteReader& in) {
  Digest digest{};
  const auto bytes = in.Take(digest.size());
  if (!bytes.empty()) std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

Bytes Rest(ByteReader& in) {
  const auto bytes = in.Take(in.remaining());
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Bytes Encode(const WeightAsk& ask) {
  Bytes bytes = Started();
  ByteWriter out(bytes);
  if (const auto* manifest = std::get_if<ManifestAsk>(&ask)) {
    out.Put(std::uint8_t{kManifest});
    out.Put(manifest->fingerprint);
    out.Put(manifest->offset);
  } else if (const auto* have = std::get_if<HaveAsk>(&ask)) {
    out.Put(std::uint8_t{kHave});
    PutDigest(out, have->id);
  } else if (const auto* chunk = std::get_if<ChunkAsk>(&ask)) {
    out.Put(std::uint8_t{kChunk});
    PutDigest(out, chunk->id);
    out.Put(chunk->range);
    out.Put(chunk->chunk);
  } else if (const auto* ranges = std::get_if<RangesAsk>(&ask)) {
    out.Put(std::uint8_t{kRanges});
    PutDigest(out, ranges->id);
  } else if (const auto* hashes = std::get_if<HashesAsk>(&ask)) {
    out.Put(std::uint8_t{kHashes});
    PutDigest(out, hashes->id);
    out.Put(hashes->range);
  } else {
    const auto& fetch = std::get<FetchAsk>(ask);
    out.Put(std::uint8_t{kFetch});
    PutDigest(out, fetch.id);
    for (const std::uint32_t range : fetch.ranges) out.Put(range);
  }
  return bytes;
}

Bytes Encode(const WeightAnswer& answer) {
  Bytes bytes = Started();
  ByteWriter out(bytes);
  const auto put_rest = [&](std::uint8_t kind, const Bytes& rest) {
    bytes.reserve(rest.size() + 64);
    out.Put(kind);
    out.PutArray(std::span<const std::uint8_t>(rest));
  };
  if (const auto* piece = std::get_if<ManifestPiece>(&answer)) {
    out.Put(std::uint8_t{kManifest});
    PutDigest(out, piece->id);
    out.Put(piece->total_bytes);
    out.PutArray(std::span<const std::uint8_t>(piece->bytes));
  } else if (const auto* have = std::get_if<HaveAnswer>(&answer)) {
    put_rest(kHave, have->bits);
  } else if (const auto* chunk = std::get_if<ChunkAnswer>(&answer)) {
    put_rest(kChunk, chunk->bytes);
  } else if (const auto* ranges = std::get_if<RangesAnswer>(&answer)) {
    out.Put(std::uint8_t{kRanges});
    for (const RangeState state : ranges->states) out.Put(static_cast<std::uint8_t>(state));
  } else if (const auto* hashes = std::get_if<HashesAnswer>(&answer)) {
    out.Put(std::uint8_t{kHashes});
    for (const Digest& hash : hashes->chunks) PutDigest(out, hash);
  } else if (std::holds_alternative<FetchAnswer>(answer)) {
    out.Put(std::uint8_t{kFetch});
  } else {
    out.Put(std::uint8_t{kRefusal});
    out.PutText(std::string_view(std::get<Refusal>(answer).text).substr(0, kRefusalBytesMax));
  }
  return bytes;
}

Result<WeightAsk> ParseWeightAsk(std::span<const std::uint8_t> bytes) {
  ByteReader in(bytes);
  WeightAsk ask;
  switch (in.Get<std::uint8_t>()) {
    case kManifest: {
      ManifestAsk one;
      one.fingerprint = in.Get<std::uint64_t>();
      one.offset = in.Get<std::uint64_t>();
      ask = one;
      break;
    }
    case kHave: ask = HaveAsk{GetDigest(in)}; break;
    case kChunk: {
      ChunkAsk one;
      one.id = GetDigest(in);
      one.range = in.Get<std::uint32_t>();
      one.chunk = in.Get<std::uint32_t>();
      ask = one;
      break;
    }
    case kRanges: ask = RangesAsk{GetDigest(in)}; break;
    case kHashes: {
      HashesAsk one;
      one.id = GetDigest(in);
      one.range = in.Get<std::uint32_t>();
      ask = one;
      break;
    }
    case kFetch: {
      FetchAsk one;
      one.id = GetDigest(in);
      if (in.remaining() == 0 || in.remaining() > kFetchAskRangesMax * sizeof(std::uint32_t)) return Broken();
      while (in.remaining() >= sizeof(std::uint32_t)) one.ranges.push_back(in.Get<std::uint32_t>());
      ask = std::move(one);
      break;
    }
    default: return Broken();
  }
  if (!in.AtEnd()) return Broken();
  return ask;
}

Result<WeightAnswer> ParseWeightAnswer(std::span<const std::uint8_t> bytes) {
  if (bytes.size() > kWeightMessageBytesMax) return Broken();
  ByteReader in(bytes);
  switch (in.Get<std::uint8_t>()) {
    case kManifest: {
      ManifestPiece piece;
      piece.id = GetDigest(in);
      piece.total_bytes = in.Get<std::uint64_t>();
      piece.bytes = Rest(in);
      const bool fits = !in.failed() && piece.bytes.size() <= kManifestPieceBytesMax &&
                        piece.total_bytes <= kManifestBytesMax && piece.bytes.size() <= piece.total_bytes;
      if (!fits) return Broken();
      return WeightAnswer(std::move(piece));
    }
    case kHave: return WeightAnswer(HaveAnswer{Rest(in)});
    case kChunk: return WeightAnswer(ChunkAnswer{Rest(in)});
    case kRanges: {
      RangesAnswer ranges;
      for (const std::uint8_t state : Rest(in)) {
        if (state > static_cast<std::uint8_t>(RangeState::kHere)) return Broken();
        ranges.states.push_back(static_cast<RangeState>(state));
      }
      return WeightAnswer(std::move(ranges));
    }
    case kHashes: {
      if (in.remaining() % sizeof(Digest) != 0) return Broken();
      HashesAnswer hashes;
      while (in.remaining() > 0) hashes.chunks.push_back(GetDigest(in));
      return WeightAnswer(std::move(hashes));
    }
    case kFetch: return in.AtEnd() ? Result<WeightAnswer>(FetchAnswer{}) : Broken();
    case kRefusal: {
      Bytes text = Rest(in);
      if (text.size() > kRefusalBytesMax) return Broken();
      return WeightAnswer(Refusal{std::string(text.begin(), text.end())});
    }
    default: return Broken();
  }
}

}  // namespace shoal
