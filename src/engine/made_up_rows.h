// Rows of small random numbers in a type of weights: for measuring, where what is computed does not matter but how long
// it takes.
//
// Their blocks are of different scales, as a real model's are: where scales are looked up in a table (ggml's of 16-bit
// floats, on x86) a few of them would all be in the nearest cache, and a pass a third faster than it ever is. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "ggml.h"

namespace shoal {

// Bytes of some whole rows of `width` numbers, at least one, to be repeated. Precondition: `type` can be quantized to
// without knowing the model, and `width` is a multiple of its block.
std::vector<std::uint8_t> MadeUpRows(ggml_type type, std::int64_t width);

}  // namespace shoal
