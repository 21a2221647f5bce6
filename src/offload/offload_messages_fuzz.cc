// Any bytes as what a process made for a device might say, or be asked: decoding never crashes and never takes more
// memory than the bytes are long.
#include <cstddef>
#include <cstdint>
#include <span>

#include "offload/messages.h"
#include "offload/verdicts.h"

using namespace shoal;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::uint8_t> bytes(data + 1, size - 1);
  std::span<const std::uint8_t> rows;
  std::vector<float> values;
  std::uint8_t out[16];
  switch (data[0] % 13) {
    case 0: {
      const Result<OffloadOpen> open = DecodeOpen(bytes);
      SHOAL_CHECK(!open.ok() || EncodeOpen(*open).size() == bytes.size());
      break;
    }
    case 1: (void)DecodeSpan(bytes, rows); break;
    case 2: (void)DecodeTokens(bytes); break;
    case 3: (void)DecodeForward(bytes, 64); break;
    case 4: (void)DecodeRead(bytes); break;
    case 5: (void)DecodeBytes(bytes, out); break;
    case 6: (void)DecodeProgress(bytes); break;
    case 7: {
      const Result<OffloadReply> reply = DecodeReply(bytes, 4);
      SHOAL_CHECK(!reply.ok() || EncodeReply(*reply).size() == bytes.size());
      break;
    }
    case 8: (void)DecodeEngine(bytes); break;
    case 9: (void)DecodeReport(bytes); break;
    case 10: (void)DecodeFloats(bytes, 4, values); break;
    case 12: {
      const Result<std::vector<SeenDevice>> seen = DecodeSeen(bytes);
      SHOAL_CHECK(!seen.ok() || EncodeSeen(*seen).size() == bytes.size());
      break;
    }
    default: {
      const auto verdicts = Verdicts::Parse(std::string(bytes.begin(), bytes.end()));
      SHOAL_CHECK(Verdicts::Parse(Verdicts::Text(verdicts)) == verdicts);
    }
  }
  return 0;
}
