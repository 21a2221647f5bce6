// Few columns of Q8_0 weights are left to ggml's dot products (ggml/sgemm_choice.cc).
#include <gtest/gtest.h>

#include "ggml.h"

struct ggml_compute_params;

// Weak: a build whose CPU backends are libraries does not have it in the program.
extern "C" __attribute__((weak)) bool llamafile_sgemm(const ggml_compute_params* params, int64_t m, int64_t n,
                                                      int64_t k, const void* a, int64_t lda, const void* b, int64_t ldb,
                                                      void* c, int64_t ldc, int type_a, int type_b, int type_c);

namespace shoal {
namespace {

// Tiles would read the parameters, which are null here.
bool TakenByTiles(std::int64_t columns, std::int64_t width) {
  return llamafile_sgemm(nullptr, 64, columns, width / 32, nullptr, width / 32, nullptr, width / 32, nullptr, 64,
                         GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, GGML_TYPE_F32);
}

TEST(SgemmChoice, FewColumnsOfQ8GoByDotProducts) {
  if (&llamafile_sgemm == nullptr) GTEST_SKIP() << "the CPU backends of this build are libraries";
  for (const std::int64_t columns : {2, 7}) EXPECT_FALSE(TakenByTiles(columns, 4096)) << columns;
  for (const std::int64_t columns : {2, 15}) EXPECT_FALSE(TakenByTiles(columns, 640)) << columns;
}

}  // namespace
}  // namespace shoal
