// libllama's quantizer: a GGUF file of another type from one of high precision.
//
// For a process of its own: it takes over libllama's log, and computes with as many threads as it is given. Knows no
// store and no names of models.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace shoal {

struct QuantizeOptions {
  std::string type;             // "Q4_K_M"
  std::string imatrix;          // a file of llama.cpp's imatrix tool; empty: none
  bool from_quantized = false;  // take a file that is quantized already; loses quality twice
  bool dry_run = false;         // only the size
  std::int32_t threads = 0;     // 0: all cores
};

struct QuantizeResult {
  std::uint64_t bytes_before = 0, bytes_after = 0;  // of the tensors; of a dry run to 0.01 MiB
};

// "Q4_0", "Q4_K_M", ... in the order of their size.
std::vector<std::string_view> QuantizationNames();

// Writes `output`, whole or not at all; of a dry run nothing. Errors: kInvalidArgument (no such type; the file is
// quantized already; an imatrix is needed), kUnsupported, kNotFound, kIo, kCorrupt (the imatrix). Blocks for minutes.
Result<QuantizeResult> QuantizeModel(const std::string& input, const std::string& output,
                                     const QuantizeOptions& options);

}  // namespace shoal
