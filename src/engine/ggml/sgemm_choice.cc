// By which of ggml's two ways its CPU backend multiplies Q8_0 weights with few columns: its own dot products, which
// read the rows of weights one after the other, or the tiles of its llamafile/sgemm.cpp, four rows at a time.
//
// ggml takes tiles from two columns on. With fewer than eight (of rows up to 1024 weights: sixteen) the dot products
// are up to three times as fast, for Q8_0 alone: that is a few answers decoded together, above all their output head
// (docs/performance.md, "Few rows of Q8_0"). They also give each column the same bits whatever stands beside it.
//
// Not part of the module: cmake/shoal_ggml_choices.cmake links it into ggml's backend, in which it takes the place of
// `llamafile_sgemm`, with ggml's sources as they are. Called by all threads of a graph at once.
#include "ggml.h"

struct ggml_compute_params;

extern "C" {

// ggml's tiles, under the name that the build gives them. C = A * B: `m` rows of weights A, `n` columns, `k` blocks in
// a row. False if they do not take such a product, and then ggml computes it by dot products.
bool shoal_ggml_tiles(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
                      const void* b, int64_t ldb, void* c, int64_t ldc, int type_a, int type_b, int type_c);

bool llamafile_sgemm(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
                     const void* b, int64_t ldb, void* c, int64_t ldc, int type_a, int type_b, int type_c) {
  constexpr int64_t kFewColumns = 8, kFewColumnsOfShortRows = 16, kShortRowBlocks = 1024 / 32;
  if (type_a == GGML_TYPE_Q8_0 && n < (k <= kShortRowBlocks ? kFewColumnsOfShortRows : kFewColumns)) return false;
  return shoal_ggml_tiles(params, m, n, k, a, lda, b, ldb, c, ldc, type_a, type_b, type_c);
}

}  // extern "C"
