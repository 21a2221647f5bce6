// Fuzz target: any bytes as a GGUF file. What parses must survive being described, written and parsed again.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "model/gguf.h"
#include "model/model_info.h"
#include "model/split_gguf.h"

namespace {

void CheckOne(std::span<const std::uint8_t> bytes, std::uint64_t file_bytes) {
  const auto parsed = shoal::ParseGguf(bytes, file_bytes);
  if (!parsed.ok()) return;
  const auto info = shoal::DescribeModel(*parsed, "fuzz.gguf");
  if (info.ok()) {
    const shoal::LayerRange all{0, info->n_layer};
    SHOAL_CHECK(info->layer_bytes.size() == static_cast<std::size_t>(info->n_layer));
    SHOAL_CHECK(info->kv_elements.size() == static_cast<std::size_t>(info->n_layer));
    SHOAL_CHECK(info->KvBytesPerToken(all, shoal::KvType::kQ8_0) <=
                2 * info->KvBytesPerToken(all, shoal::KvType::kF16) + 34U * info->n_layer);
    (void)info->StageWeightBytes(all);
  }
  // Two rounds, since NaNs and the padding may differ from what the file had.
  shoal::Gguf again = *parsed;
  const std::uint64_t data_bytes = shoal::LayOutTensors(again);
  const auto first = shoal::SerializeGguf(again);
  const auto reparsed = shoal::ParseGguf(first, first.size() + data_bytes);
  SHOAL_CHECK(reparsed.ok());
  SHOAL_CHECK(reparsed->tensors == parsed->tensors);
  SHOAL_CHECK(shoal::SerializeGguf(*reparsed) == first);
}

// The bytes as two parts of a model, cut where their first byte says.
void CheckParts(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return;
  const std::size_t cut = (bytes.size() - 1) * bytes[0] / 255;
  bytes = bytes.subspan(1);
  const auto first = shoal::ParseGguf(bytes.first(cut), std::uint64_t{1} << 60);
  const auto second = shoal::ParseGguf(bytes.subspan(cut), std::uint64_t{1} << 60);
  if (!first.ok()) return;
  const std::vector<std::string> names{"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"};
  for (const bool alone : {true, false}) {
    if (!alone && !second.ok()) break;
    const std::vector<shoal::Gguf> parts = alone ? std::vector{*first} : std::vector{*first, *second};
    const auto joined = shoal::JoinGguf(parts, std::span(names).first(parts.size()));
    if (!joined.ok()) continue;
    const auto again = shoal::ParseGguf(joined->header, joined->file_bytes);
    SHOAL_CHECK(again.ok());
    std::uint64_t end = joined->header.size();
    for (const shoal::PartExtent& extent : joined->extents) {
      SHOAL_CHECK(extent.offset >= end && extent.part < parts.size());
      end = extent.offset + extent.bytes;
      SHOAL_CHECK(end <= joined->file_bytes);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  CheckOne(bytes, size);
  // As the header of a file that has all the data it could ask for.
  CheckOne(bytes, std::uint64_t{1} << 62);
  CheckParts(bytes);
  // The same bytes as the text of --stages.
  const auto stages = shoal::ParseStages({reinterpret_cast<const char*>(data), size}, 30);
  if (stages.ok()) SHOAL_CHECK(!stages->empty() && stages->front().first == 0 && stages->back().last == 30);
  return 0;
}
