// Fuzz target: any bytes as a manifest. What parses must be written as the same bytes, and its ranges must lie in the
// file, apart from each other.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "weights/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  const auto parsed = shoal::ParseManifest(bytes);
  if (!parsed.ok()) return 0;
  std::uint64_t total = parsed->header.size();
  for (std::size_t i = 0; i < parsed->ranges.size(); ++i) {
    const shoal::WeightRange& range = parsed->ranges[i];
    std::uint64_t end = parsed->header.size(), sum = 0;
    for (const shoal::Extent& extent : range.extents) {
      SHOAL_CHECK(extent.offset >= end && extent.bytes <= parsed->file_bytes - extent.offset);
      end = extent.offset + extent.bytes;
      sum += extent.bytes;
    }
    SHOAL_CHECK(sum == range.bytes && range.chunks.size() == (parsed->sourced() ? 0 : parsed->ChunkCount(i)));
    total += sum;
  }
  SHOAL_CHECK(total <= parsed->file_bytes);
  for (const shoal::PartExtent& extent : parsed->extents) {
    SHOAL_CHECK(extent.offset + extent.bytes <= parsed->file_bytes && extent.part < parsed->sources.size());
    SHOAL_CHECK(extent.part_offset + extent.bytes <= parsed->sources[extent.part].bytes);
  }
  const auto again = shoal::EncodeManifest(*parsed);
  SHOAL_CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  return 0;
}
