// For tests: cuts a GGUF file into parts as llama.cpp's gguf-split does.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "model/gguf.h"
#include "model/split_gguf.h"

namespace shoal {

// `tensors`: how many each part gets. Writes STEM-00001-of-0000N.gguf and so on.
inline void CutTestModel(const std::string& path, const std::string& stem, const std::vector<std::size_t>& tensors) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const Gguf whole = *ParseGguf(bytes, bytes.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    Gguf part;
    if (i == 0) part.metadata = whole.metadata;
    part.Set("split.no", GgufValue::U32(static_cast<std::uint32_t>(i)));
    part.Set("split.count", GgufValue::U32(static_cast<std::uint32_t>(tensors.size())));
    part.Set("split.tensors.count", GgufValue::U32(static_cast<std::uint32_t>(whole.tensors.size())));
    part.alignment = whole.alignment;
    const std::size_t first = next;
    for (std::size_t n = 0; n < tensors[i]; ++n) part.tensors.push_back(whole.tensors[next++]);
    std::vector<std::uint8_t> data(LayOutTensors(part));
    for (std::size_t n = 0; n < tensors[i]; ++n) {
      const GgufTensor& from = whole.tensors[first + n];
      const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(whole.data_offset + from.offset);
      std::copy(begin, begin + static_cast<std::ptrdiff_t>(from.bytes),
                data.begin() + static_cast<std::ptrdiff_t>(part.tensors[n].offset));
    }
    const std::vector<std::uint8_t> header = SerializeGguf(part);
    const SplitName name{stem, 1, static_cast<std::int32_t>(tensors.size())};
    std::ofstream out(PartName(name, static_cast<std::int32_t>(i) + 1), std::ios::binary);
    out.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
    out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  }
}

}  // namespace shoal
