// By which way ggml's CPU backend multiplies quantized weights with columns: by dot products of ours (dot_products.h),
// by its own, or by the tiles of its llamafile/sgemm.cpp, four rows of weights at a time.
//
// Ours are faster than both, and give the bits of ggml's. Where there are none ggml takes its tiles from two columns
// on, although its dot products of Q8_0 are faster with few columns: tiles read rows of weights side by side, which no
// processor foresees (docs/performance.md, "Products").
//
// Not part of the module: cmake/shoal_ggml_choices.cmake links it into ggml's backend, in which it takes the place of
// `llamafile_sgemm`, with ggml's sources as they are. Called by all threads of a graph at once.
#include "dot_products.h"
#include "ggml.h"

struct ggml_compute_params;

extern "C" {

// ggml's tiles, under the name that the build gives them. C = A * B: `m` rows of weights A, `n` columns, `k` blocks in
// a row. False if they do not take such a product, and then ggml computes it by dot products.
bool shoal_ggml_tiles(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
                      const void* b, int64_t ldb, void* c, int64_t ldc, int type_a, int type_b, int type_c);

bool llamafile_sgemm(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
                     const void* b, int64_t ldb, void* c, int64_t ldc, int type_a, int type_b, int type_c) {
  if (shoal::MultiplyByDotProducts(params, m, n, k, a, lda, b, ldb, c, ldc, type_a, type_b, type_c)) return true;
  constexpr int64_t kFewColumns = 8, kFewColumnsOfShortRows = 16, kShortRowBlocks = 1024 / 32;
  if (type_a == GGML_TYPE_Q8_0 && n < (k <= kShortRowBlocks ? kFewColumnsOfShortRows : kFewColumns)) return false;
  return shoal_ggml_tiles(params, m, n, k, a, lda, b, ldb, c, ldc, type_a, type_b, type_c);
}

}  // extern "C"
