// Products of quantized weights with several columns on x86 with AVX2, eight rows of weights at a time.
//
// ggml's dot products unpack each row of weights again for every column, and its own tiles know few formats. Here the
// weights of eight rows are unpacked once for all columns, one row in each lane of a vector, so that nothing is summed
// across lanes and a block's scales are applied to all eight rows at once. What comes out is to the last bit what
// ggml's dot products give: a column is the same whatever stands beside it, alone too.
#pragma once

#include <cstdint>

struct ggml_compute_params;

namespace shoal {

inline constexpr int kRowTilesVersion = 1;  // another when they are faster: what was measured before holds no more

// As llamafile_sgemm of ggml: C = A * B, `m` rows of weights A, `n` columns, `k` blocks in a row; strides in blocks,
// C's in floats. Called by all threads of a graph at once. False, and C untouched, if it does not know such a product
// or the processor is another.
bool MultiplyByRowTiles(const ggml_compute_params* params, std::int64_t m, std::int64_t n, std::int64_t k,
                        const void* a, std::int64_t lda, const void* b, std::int64_t ldb, void* c, std::int64_t ldc,
                        int type_a, int type_b, int type_c) noexcept;

// Whether there are row tiles of a type of weights here: then dot products, which give the same bits, are what is left
// for products that are not multiplied by them.
bool HasRowTiles(int type_a) noexcept;

}  // namespace shoal
