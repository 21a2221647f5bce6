// Products of quantized weights with columns on x86 with AVX2, a row of weights with up to four columns at a time.
//
// ggml's dot products unpack a row of weights again for every column, convert the scales of both again for every row,
// and leave it to the processor to guess which weights are next. Here columns are laid out once for all rows, a row is
// unpacked once for four of them, and the rows after it are asked for ahead. What comes out is to the last bit what
// ggml's dot products give: a column is the same whatever stands beside it.
#pragma once

#include <cstdint>

struct ggml_compute_params;

namespace shoal {

inline constexpr int kDotProductsVersion = 2;  // another when they are faster: what was measured before holds no more

// As llamafile_sgemm of ggml: C = A * B, `m` rows of weights A, `n` columns, `k` blocks in a row; strides in blocks,
// C's in floats. Called by all threads of a graph at once. False, and C untouched, if it does not know such a product
// (`type_a` is not Q4_1, Q5_0, Q5_1 or Q8_0) or the processor is another.
bool MultiplyByDotProducts(const ggml_compute_params* params, std::int64_t m, std::int64_t n, std::int64_t k,
                           const void* a, std::int64_t lda, const void* b, std::int64_t ldb, void* c, std::int64_t ldc,
                           int type_a, int type_b, int type_c) noexcept;

}  // namespace shoal
