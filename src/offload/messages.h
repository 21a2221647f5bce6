// What a node and a process made for a device say to each other, as bytes. Pure; offload/channel.h carries them.
//
// The node asks, one thing at a time: open an engine or check a device, then run rows, rewind, and so on. Until it
// answers, the process asks back for bytes of the model file, which it never opens itself, and says how far it is.
// Both are one program, so there is no version; but a broken driver writes anywhere, so what the process says is
// checked like a stranger's words.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/ggml_device.h"

namespace shoal {

using OffloadBytes = std::vector<std::uint8_t>;

enum class OffloadKind : std::uint32_t {
  // From the node.
  kOpen = 1,   // OffloadOpen
  kCheck,      // OffloadOpen
  kBytes,      // Status, then the bytes that kRead asked for
  kEmbed,      // tokens
  kForward,    // rows, then f32 [T, n_embd]
  kRewind,     // OffloadSpan
  kCopy,       // OffloadSpan
  kReadRows,   // OffloadSpan
  kWriteRows,  // OffloadSpan, then the rows
  kAbort,      // nothing: ends a kForward early, is not answered
  kSee,        // a backend's name, nothing else: which devices it sees
  // From the process.
  kRead = 64,  // offset and count in the model file
  kProgress,   // f32 of [0, 1]
  kReply,      // OffloadReply: the answer to any of the node's
};

inline constexpr std::uint32_t kOffloadReadBytesMax = 4U << 20;  // one kRead
inline constexpr std::uint32_t kOffloadTextMax = 16U << 10;      // of a path, an error, a device's name
// Of a message that carries neither rows nor bytes of a model.
inline constexpr std::uint64_t kOffloadSmallBytesMax = 1U << 20;

struct OffloadOpen {
  std::string path;  // what to call the model
  std::uint64_t file_bytes = 0, header_bytes = 0;
  EngineOptions options;  // without on_progress
};
OffloadBytes EncodeOpen(const OffloadOpen& open);
Result<OffloadOpen> DecodeOpen(std::span<const std::uint8_t> bytes);

struct OffloadSpan {
  SequenceId sequence = 0, to_sequence = 0;
  Position from = 0, to = 0;
};
OffloadBytes EncodeSpan(const OffloadSpan& span, std::span<const std::uint8_t> rows = {});
// `rows` is what follows it, inside `bytes`.
Result<OffloadSpan> DecodeSpan(std::span<const std::uint8_t> bytes, std::span<const std::uint8_t>& rows);

OffloadBytes EncodeTokens(std::span<const TokenId> tokens);
Result<std::vector<TokenId>> DecodeTokens(std::span<const std::uint8_t> bytes);

OffloadBytes EncodeForward(std::span<const EngineRow> rows, std::span<const float> hidden);
struct OffloadForward {
  std::vector<EngineRow> rows;
  std::vector<float> hidden;
};
Result<OffloadForward> DecodeForward(std::span<const std::uint8_t> bytes, std::uint32_t rows_max);

struct OffloadRead {
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;  // 1 to kOffloadReadBytesMax
};
OffloadBytes EncodeRead(const OffloadRead& read);
Result<OffloadRead> DecodeRead(std::span<const std::uint8_t> bytes);

OffloadBytes EncodeBytes(const Status& status, std::span<const std::uint8_t> data);
Status DecodeBytes(std::span<const std::uint8_t> bytes, std::span<std::uint8_t> out);

OffloadBytes EncodeProgress(float done);
Result<float> DecodeProgress(std::span<const std::uint8_t> bytes);

// What an opened engine is.
struct OffloadEngine {
  EngineMemory memory;
  std::string device;  // "Vulkan0: llvmpipe (...)"
};
// What a check found.
struct DeviceReport {
  std::string device;
  double difference = 0;      // of hidden states: squares of the difference over squares; of logits: the mean KL
  double difference_max = 0;  // what is taken for the same
  // Of logits: the rows compared, those whose likeliest token is the same, and those where it is clearly another.
  std::uint32_t tokens = 0, tokens_same = 0, tokens_other = 0;
  bool passed() const { return difference <= difference_max && tokens_other == 0; }  // false for what is no number
};

// An answer: how it went, and what is asked for when it went well.
struct OffloadReply {
  Status status;
  std::vector<Position> lengths;  // of every sequence, as of now; empty before an engine is open
  OffloadBytes data;              // f32 values, rows, an OffloadEngine or a DeviceReport
};
OffloadBytes EncodeReply(const OffloadReply& reply);
Result<OffloadReply> DecodeReply(std::span<const std::uint8_t> bytes, std::int32_t sequences);

OffloadBytes EncodeEngine(const OffloadEngine& engine);
Result<OffloadEngine> DecodeEngine(std::span<const std::uint8_t> bytes);
OffloadBytes EncodeReport(const DeviceReport& report);
Result<DeviceReport> DecodeReport(std::span<const std::uint8_t> bytes);
OffloadBytes EncodeSeen(std::span<const SeenDevice> seen);
Result<std::vector<SeenDevice>> DecodeSeen(std::span<const std::uint8_t> bytes);
// `count` values; kCorrupt when there are others. Values that are no numbers are let through: an engine may compute
// them.
Status DecodeFloats(std::span<const std::uint8_t> bytes, std::size_t count, std::vector<float>& out);

}  // namespace shoal
