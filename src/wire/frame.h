// The header of every frame: what it is, how long, which epoch. Bytes in and out, no I/O.
//
// Layout, little-endian, 24 bytes:
//   0  u32  magic "SHL1"     8  u32  payload bytes
//   4  u8   version (1)     12  u32  CRC-32C of the payload
//   5  u8   type            16  u64  epoch
//   6  u16  flags (0)
// docs/wire-format.md describes every payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace shoal {

inline constexpr std::uint32_t kFrameMagic = 0x314C4853;  // "SHL1"
inline constexpr std::uint8_t kFrameVersion = 1;
inline constexpr std::size_t kFrameHeaderBytes = 24;
inline constexpr std::size_t kFrameBytesMax = 64U << 20;

enum class FrameType : std::uint8_t {
  kBatch = 1,       // one micro-batch's tokens and hidden states down the pipeline
  kControl = 2,     // sequence operations down the pipeline: open, rewind, copy, close
  kResult = 3,      // one micro-batch's sampled tokens from the last stage
  kFailure = 4,     // a stage could not run a micro-batch
  kEnd = 5,         // nothing follows on this stream; without it a stream that ends was cut
  kCluster = 6,     // a message of cluster/ between two nodes
  kPipeHello = 7,   // first on an activation stream: for which stage of which placement
  kGenerate = 8,    // entry node to head: a generation to start; a Control with its Open follows
  kGenerated = 9,   // head to entry node: a generation was accepted, or is over
  kInventory = 10,  // first from a stage to the head: what its KV cache holds
  kAnswer = 11,     // an answer outside the node that makes it: wire/answer_messages.h
  kWeights = 12,    // a question about weights, or its answer
  kCopyHello = 13,  // first on a copy stream: which copy of a stage
  kCopyRows = 14,   // rows of the stage's KV cache
};
inline constexpr FrameType kFrameTypeLast = FrameType::kCopyRows;

struct FrameHeader {
  FrameType type = FrameType::kBatch;
  std::uint32_t payload_bytes = 0;
  std::uint32_t payload_crc = 0;
  Epoch epoch = 0;
};

// Of the first kFrameHeaderBytes of a frame, all of it but the checksum: enough to know how much follows. Errors: as
// ParseFrame.
Result<FrameHeader> ParseFrameHeader(std::span<const std::uint8_t> bytes);
// The header of a whole frame, after checking magic, version, type, flags, length (exactly bytes.size()) and CRC.
// Errors: kCorrupt, kUnsupported (another version).
Result<FrameHeader> ParseFrame(std::span<const std::uint8_t> bytes);
// The payload of a frame that ParseFrame accepted.
std::span<const std::uint8_t> FramePayload(std::span<const std::uint8_t> bytes);

// As ParseFrame, and kCorrupt for a frame of another type.
Result<FrameHeader> ExpectFrame(FrameType type, std::span<const std::uint8_t> bytes);
// For what is wrong with a payload: kCorrupt.
Error BrokenFrame(std::string_view what);

// The beginning of a frame: room for its header, and reserved for so many bytes of payload, which go behind it.
// Precondition (CHECK): together at most kFrameBytesMax.
std::vector<std::uint8_t> StartFrame(std::size_t payload_bytes);
// Fills the first kFrameHeaderBytes of `frame`, whose payload is already in place.
// Precondition (CHECK): kFrameHeaderBytes <= frame.size() <= kFrameBytesMax.
void SealFrame(FrameType type, Epoch epoch, std::span<std::uint8_t> frame);

// CRC-32C (Castagnoli, as in RFC 3720). Uses the processor's instruction where there is one.
std::uint32_t Crc32c(std::span<const std::uint8_t> bytes);

}  // namespace shoal
