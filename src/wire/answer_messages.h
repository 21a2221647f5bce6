// An answer of the API outside the node that makes it: a copy for the case that this node is lost, and its way to a
// client of another node. Bytes in and out, no I/O.
//
// All of these are frames of type Answer, whose payload opens with a u8 that says which. A keep stream (from the node
// that answers to the one that keeps copies): Record, then Entries of it, of many answers interleaved. An answer stream
// (from the node whose client asks to any other): Ask; back Found; then, where the asker wants it from there, Attach;
// back Head, then Pieces to the end of the stream.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "sample/params.h"
#include "wire/frame.h"

namespace shoal {

inline constexpr std::uint32_t kAnswerIdBytesMax = 64;
inline constexpr std::uint32_t kAnswerModelBytesMax = 256;
inline constexpr std::uint32_t kAnswerBodyBytesMax = 1U << 20;  // of a request that is copied
inline constexpr std::uint32_t kAnswerEntriesMax = 4096;        // of one frame
inline constexpr std::uint32_t kAnswerChoicesMax = 1024;
inline constexpr std::uint32_t kAnswerPositionBytesMax = 8192;  // of a Last-Event-ID
inline constexpr std::uint32_t kAnswerPieceBytesMax = 256U << 10;
inline constexpr std::size_t kAnswerFrameBytesMax = 2U << 20;  // of a stream of these

// What a client may name an answer by besides its id: a digest of its own key. All zero: nothing.
using AnswerKey = std::array<std::uint8_t, 32>;

enum class Dialect : std::uint8_t { kCompletions = 1, kChat = 2 };

// A request as it was understood. With the tokens that were sampled for it, the answer can be made again, byte for
// byte, wherever the model is.
struct AnswerRecord {
  Dialect dialect = Dialect::kChat;
  bool keep = false;  // goes on while no client listens
  std::string id;     // of the response
  std::string model;  // whatever name the client gave it
  std::int64_t created_s = 0;
  std::uint64_t seed = 0;  // where the body has none
  AnswerKey key{};
  AnswerKey digest{};  // of the body, for a second request with the same key
  std::string body;    // JSON, as it came
  bool operator==(const AnswerRecord&) const = default;
};

// One thing that happened to one choice, in the order in which it did.
struct AnswerEntry {
  enum class Kind : std::uint8_t { kReused = 1, kToken = 2, kStop = 3, kLength = 4 };
  std::uint16_t choice = 0;  // < kAnswerChoicesMax
  Kind kind = Kind::kToken;
  std::int32_t reused_tokens = 0;  // kReused: prompt tokens that came from the cache
  SampledToken token;              // kToken
  bool operator==(const AnswerEntry&) const = default;
};

struct AnswerCopy {  // Record: a new answer on this keep stream
  std::uint32_t number = 0;
  AnswerRecord record;
  bool operator==(const AnswerCopy&) const = default;
};
struct AnswerEntries {
  std::uint32_t number = 0;  // of the Record
  std::uint32_t first = 0;   // how many entries came before
  std::vector<AnswerEntry> entries;
  bool operator==(const AnswerEntries&) const = default;
};

struct AnswerAsk {
  std::string id;  // empty: by key
  AnswerKey key{};
  bool operator==(const AnswerAsk&) const = default;
};
enum class AnswerPlace : std::uint8_t {
  kNowhere = 0,
  kCopy = 1,     // a copy, which could be gone on with
  kClaimed = 2,  // about to be started, unless it is found elsewhere
  kHere = 3,     // it runs here, or has run here
};
struct AnswerFound {
  AnswerPlace place = AnswerPlace::kNowhere;
  AnswerKey digest{};
  bool operator==(const AnswerFound&) const = default;
};
struct AnswerAttach {
  enum class Mode : std::uint8_t { kWhole = 0, kStream = 1, kStreamUsage = 2, kAsFirstAsked = 3 };
  Mode mode = Mode::kAsFirstAsked;  // kAsFirstAsked: a stream, with usage as the first client wanted
  std::string position;             // the last event that the client has; empty: none
  bool operator==(const AnswerAttach&) const = default;
};
struct AnswerHeadMessage {
  std::uint16_t status = 200;  // HTTP
  std::uint16_t retry_after_s = 0;
  bool streamed = false;  // server-sent events; else one body
  bool operator==(const AnswerHeadMessage&) const = default;
};
struct AnswerPiece {
  std::string bytes;
  bool operator==(const AnswerPiece&) const = default;
};

using AnswerMessage =
    std::variant<AnswerCopy, AnswerEntries, AnswerAsk, AnswerFound, AnswerAttach, AnswerHeadMessage, AnswerPiece>;

// Precondition (CHECK): within the limits above.
std::vector<std::uint8_t> EncodeAnswerMessage(const AnswerMessage& message);
// Of a whole frame. Errors: kCorrupt (also a frame of another type, a count over its limit, trailing bytes),
// kUnsupported (another version). Allocates at most a small multiple of frame.size().
Result<AnswerMessage> DecodeAnswerMessage(std::span<const std::uint8_t> frame);

}  // namespace shoal
