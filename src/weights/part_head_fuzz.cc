// Fuzz target: any bytes as the head of a model's part. What parses has ranges of its manifest, and their bytes.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "weights/part_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto head = shoal::ParsePartHead({data, size});
  if (!head.ok()) return 0;
  SHOAL_CHECK(head->data_offset <= size);
  std::uint64_t bytes = head->data_offset;
  for (const std::uint32_t range : head->ranges) bytes += head->manifest.ranges.at(range).bytes;
  SHOAL_CHECK(bytes == head->file_bytes);
  return 0;
}
