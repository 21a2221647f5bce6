// What is said on streams between nodes besides the pipeline's own frames: which activation stream this is, and a
// generation on its way from the entry node to the head and back. Bytes in and out, no I/O.
//
// A generate stream: the entry node sends Generate, then a Control with exactly one Open (prompt, sampling). The head
// answers Generated (kAccepted) or Failure; then Result frames with one row per token; then Generated (how it ended) or
// Failure. Closing the stream cancels.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "wire/frame.h"

namespace shoal {

inline constexpr std::uint32_t kGenerateModelBytesMax = 256;

enum class PipeKind : std::uint8_t { kInput = 1, kResults = 2 };

// The header's epoch names the placement. Nothing comes back on the stream, ever.
struct PipeHello {
  PipeKind kind = PipeKind::kInput;
  StageIndex from = 0;  // the stage that sends on this stream
  StageIndex to = 0;    // the stage that reads it; 0 with kResults: the head
  bool operator==(const PipeHello&) const = default;
};

struct GenerateMessage {
  std::string model;
  std::int32_t tokens_max = 0;  // >= 1
  bool operator==(const GenerateMessage&) const = default;
};

enum class GeneratedKind : std::uint8_t { kAccepted = 1, kStop = 2, kLength = 3, kCancelled = 4 };
struct GeneratedMessage {
  GeneratedKind kind = GeneratedKind::kAccepted;
  std::int32_t reused_tokens = 0;  // prompt tokens that came from the cache
  bool operator==(const GeneratedMessage&) const = default;
};

// Precondition (CHECK): fields within their limits; a model name is cut at kGenerateModelBytesMax.
std::vector<std::uint8_t> EncodePipeHello(const PipeHello& hello, Epoch epoch);
std::vector<std::uint8_t> EncodeGenerate(const GenerateMessage& message, Epoch epoch);
std::vector<std::uint8_t> EncodeGenerated(const GeneratedMessage& message, Epoch epoch);

// Of a whole frame of that type. Errors: kCorrupt, kUnsupported; kCorrupt also for a frame of another type.
struct PipeHelloFrame {
  Epoch epoch = 0;
  PipeHello hello;
};
Result<PipeHelloFrame> DecodePipeHello(std::span<const std::uint8_t> frame);
Result<GenerateMessage> DecodeGenerate(std::span<const std::uint8_t> frame);
Result<GeneratedMessage> DecodeGenerated(std::span<const std::uint8_t> frame);

}  // namespace shoal
