// Products of quantized weights with any number of columns are to the bit what ggml's own dot products give, by ggml's
// graph and all its threads, where the processor has ours for the format; elsewhere about the same
// (ggml/dot_products.cc). ggml's own are those of the products of experts, which no sgemm takes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/cpu_kernels.h"
#include "engine/llama_shard.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr std::int64_t kWidth = 1280;   // of a row
constexpr std::int64_t kRows = 203;     // more than one job, not a multiple of any
constexpr std::int64_t kColumns = 231;  // more than one panel and three

std::vector<float> Random(std::int64_t count) {
  std::mt19937 bits(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(bits);
  return values;
}

// The weights in `type`, once.
const std::vector<char>& Weights(ggml_type type) {
  static std::map<ggml_type, std::vector<char>> weights;
  std::vector<char>& rows = weights[type];
  if (rows.empty()) {
    rows.resize(ggml_row_size(type, kWidth) * kRows);
    ggml_quantize_chunk(type, Random(kRows * kWidth).data(), rows.data(), 0, kRows, kWidth, nullptr);
  }
  return rows;
}

// Whether the backend that computes here has dot products of ours.
bool HasOurs() {
  const ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
  const auto features = reinterpret_cast<ggml_backend_get_features_t>(
      ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
  std::set<std::string> has;
  for (const ggml_backend_feature* one = features(reg); one->name != nullptr; ++one) has.insert(one->name);
  return has.contains("AVX2") && has.contains("FMA") && has.contains("F16C");
}

// By whom something is multiplied.
enum class Way { kChosen, kGgmlDotProducts };

// [columns][rows]: the first `rows` of the weights in `type` times columns `first` to `first + count` of some numbers.
std::vector<float> Product(ggml_type type, std::int64_t first, std::int64_t count, int threads,
                           std::int64_t rows = kRows, Way way = Way::kChosen) {
  static const std::vector<float> numbers = Random(kColumns * kWidth);
  static ggml_backend* const cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  static std::map<int, ThreadpoolPtr> pools;  // by threads: the backend holds on to its last one
  if (ThreadpoolPtr& pool = pools[threads]; pool == nullptr) {
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    pool.reset(NewThreadpool(&params));
  }
  SetBackendThreads(cpu, threads, pools[threads].get());
  ggml_context* const context = ggml_init({std::size_t{8} << 20, nullptr, false});
  ggml_tensor* const a = ggml_new_tensor_2d(context, type, kWidth, rows);
  ggml_tensor* const b = ggml_new_tensor_3d(context, GGML_TYPE_F32, kWidth, 1, count);
  std::copy_n(Weights(type).begin(), ggml_nbytes(a), static_cast<char*>(a->data));
  std::copy_n(numbers.begin() + first * kWidth, count * kWidth, static_cast<float*>(b->data));
  ggml_tensor* c = nullptr;
  if (way == Way::kChosen) {
    c = ggml_mul_mat(context, a, ggml_reshape_2d(context, b, kWidth, count));
  } else {  // of one expert, which all columns are for
    ggml_tensor* const experts = ggml_new_tensor_2d(context, GGML_TYPE_I32, 1, count);
    std::fill_n(static_cast<std::int32_t*>(experts->data), count, 0);
    c = ggml_mul_mat_id(context, a, b, experts);
  }
  ggml_cgraph* const graph = ggml_new_graph(context);
  ggml_build_forward_expand(graph, c);
  EXPECT_EQ(ggml_backend_graph_compute(cpu, graph), GGML_STATUS_SUCCESS);
  const auto* const values = static_cast<const float*>(c->data);
  std::vector<float> product(values, values + rows * count);
  ggml_free(context);
  return product;
}

class DotProducts : public testing::TestWithParam<ggml_type> {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(LoadedCpuKernels().ok()); }
};

TEST_P(DotProducts, AreThoseOfGgmlToTheBit) {
  const std::vector<float> expected = Product(GetParam(), 0, kColumns, 1, kRows, Way::kGgmlDotProducts);
  const auto [least, most] = std::minmax_element(expected.begin(), expected.end());
  ASSERT_LT(*least, *most);
  const float tolerance = HasOurs() ? 0 : 1e-5F * (*most - *least);
  for (const int threads : {1, 2}) {
    for (const std::int64_t count : {1, 2, 3, 4, 5, 7, 16, 129, static_cast<int>(kColumns)}) {
      const std::vector<float> product = Product(GetParam(), 0, count, threads);
      for (std::size_t i = 0; i < product.size(); ++i) {
        ASSERT_NEAR(product[i], expected[i], tolerance)
            << "row " << i % kRows << " of column " << i / kRows << " of " << count << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(DotProducts, AColumnIsTheSameWhateverStandsBesideIt) {
  const std::vector<float> all = Product(GetParam(), 0, kColumns, 1);
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, std::int64_t{5}, kColumns - 16}) {
    const std::vector<float> some = Product(GetParam(), first, 16, 2);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * kRows)) << first;
  }
}

TEST_P(DotProducts, FewRowsAreThoseOfMany) {
  const std::vector<float> all = Product(GetParam(), 0, 16, 1);
  for (const std::int64_t rows : {1, 3, 9}) {
    const std::vector<float> some = Product(GetParam(), 0, 16, 2, rows);
    for (std::int64_t column = 0; column < 16; ++column) {
      EXPECT_TRUE(
          std::equal(some.begin() + column * rows, some.begin() + (column + 1) * rows, all.begin() + column * kRows))
          << rows << " rows, column " << column;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DotProducts,
                         testing::Values(GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0),
                         [](const auto& format) { return std::string(ggml_type_name(format.param)); });

}  // namespace
}  // namespace shoal
