// A model that lies in several GGUF files, joined: the header that one file would have, and where each part's data
// goes.
//
// Parts as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf, the metadata in the first, in each its own
// tensors, and the keys split.no, split.count and split.tensors.count. Joined is the first part's metadata without
// those keys and all tensors in the order of the parts: the same parts give the same bytes on every node.
// Pure; who has the files reads them (OpenModelFile, weights/).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/gguf.h"

namespace shoal {

inline constexpr std::int32_t kGgufPartsMax = 512;

// What the name of a part says. `stem` is what comes before "-00001-of-00003.gguf", folders included.
struct SplitName {
  std::string stem;
  std::int32_t part = 1, parts = 1;  // 1 <= part <= parts
};
// Empty: not the name of a part, or one of more than kGgufPartsMax.
std::optional<SplitName> ParseSplitName(std::string_view path);
// "STEM-00002-of-00003.gguf".
std::string PartName(const SplitName& name, std::int32_t part);
// Of a part: the path of its first one; any other path as it is.
std::string FirstPartOf(const std::string& path);
// How many parts a file's metadata says it has: 1 for a file of its own.
std::int64_t PartsOf(const Gguf& gguf);

// Of the parts after the first no more is needed than what says whose they are: a hostile one could carry a tokenizer
// each. To be called as each is read.
void KeepOnlyWhoseItIs(Gguf& part);

// Bytes of the joined file that lie in a part, one after the other.
struct PartExtent {
  std::uint64_t offset = 0, bytes = 0;  // in the joined file
  std::size_t part = 0;                 // from 0
  std::uint64_t part_offset = 0;        // in the part's file
};
// Where byte `offset` of a joined file lies, and how many bytes from there on lie in the same place. `extent`: null in
// padding, or in the header. Precondition (CHECK): offset < end, which is the file's.
struct JoinedPlace {
  const PartExtent* extent = nullptr;
  std::uint64_t bytes = 0;
};
JoinedPlace PlaceIn(std::span<const PartExtent> extents, std::uint64_t offset, std::uint64_t end);

struct JoinedGguf {
  std::vector<std::uint8_t> header;  // at offset 0
  std::uint64_t file_bytes = 0;
  std::vector<PartExtent> extents;  // ascending; what is in none of them, and not the header, is padding of zeros
};
// `parts`: all of them, in order. `names`: of each, for messages.
// Errors: kCorrupt (a part of another model, or of another place in it; a tensor twice; too much).
Result<JoinedGguf> JoinGguf(std::span<const Gguf> parts, std::span<const std::string> names);

}  // namespace shoal
