// The ways to multiply quantized weights with columns, on one core: ggml's dot products, ggml's tiles, and what
// src/engine/ggml/sgemm_choice.cc takes, which are our dot products where the processor has them.
//
// Each way is called as ggml's graph calls it, in turns; the median of the rounds is shown.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml.h"

extern "C" {
using Sgemm = bool(const ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
                   const void* b, int64_t ldb, void* c, int64_t ldc, int type_a, int type_b, int type_c);
Sgemm llamafile_sgemm, shoal_ggml_tiles;
}

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr int kRounds = 5;
constexpr double kRoundS = 0.01;
constexpr double kBar = 1;
constexpr std::int64_t kWeightBytes = 64'000'000;  // more than caches hold: as in a model, they come from memory
constexpr std::int64_t kDotsAtOnce = 16;           // rows and columns, as ggml does it

// Quantized random numbers, [rows][width].
std::vector<std::uint8_t> Quantized(ggml_type type, std::int64_t rows, std::int64_t width) {
  static std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  const std::size_t row_bytes = ggml_row_size(type, width);
  std::vector<std::uint8_t> quantized(row_bytes * static_cast<std::size_t>(rows));
  std::vector<float> row(static_cast<std::size_t>(width));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (float& value : row) value = normal(bits);
    ggml_get_type_traits_cpu(type)->from_float(row.data(), quantized.data() + static_cast<std::size_t>(i) * row_bytes,
                                               width);
  }
  return quantized;
}

struct Shape {
  ggml_type type;
  std::int64_t rows, width;
};

// Weights of a shape and columns for them.
class Products {
 public:
  Products(const Shape& shape, std::int64_t columns_max, const ggml_compute_params& params)
      : shape_(shape),
        traits_(*ggml_get_type_traits_cpu(shape.type)),
        params_(params),
        weights_(Quantized(shape.type, shape.rows, shape.width)),
        columns_(Quantized(traits_.vec_dot_type, columns_max, shape.width)),
        results_(static_cast<std::size_t>(shape.rows * columns_max)) {}

  // False: this way does not know them.
  bool By(Sgemm* way, std::int64_t columns) {
    const std::int64_t blocks = shape_.width / ggml_blck_size(shape_.type);
    return way(&params_, shape_.rows, columns, blocks, weights_.data(), blocks, columns_.data(), blocks,
               results_.data(), shape_.rows, shape_.type, traits_.vec_dot_type, GGML_TYPE_F32);
  }

  void ByDotProducts(std::int64_t columns) {
    const auto row_bytes = static_cast<std::int64_t>(ggml_row_size(shape_.type, shape_.width));
    const auto column_bytes = static_cast<std::int64_t>(ggml_row_size(traits_.vec_dot_type, shape_.width));
    for (std::int64_t j = 0; j < columns; j += kDotsAtOnce) {
      for (std::int64_t i = 0; i < shape_.rows; i += kDotsAtOnce) {
        for (std::int64_t column = j; column < std::min(columns, j + kDotsAtOnce); ++column) {
          for (std::int64_t row = i; row < std::min(shape_.rows, i + kDotsAtOnce); ++row) {
            traits_.vec_dot(static_cast<int>(shape_.width),
                            &results_[static_cast<std::size_t>(column * shape_.rows + row)], 0,
                            weights_.data() + row * row_bytes, 0, columns_.data() + column * column_bytes, 0, 1);
          }
        }
      }
    }
  }

 private:
  const Shape shape_;
  const ggml_type_traits_cpu traits_;
  const ggml_compute_params& params_;
  std::vector<std::uint8_t> weights_, columns_;
  std::vector<float> results_;
};

// Calls a second.
double Rate(const std::function<void()>& call) {
  const auto start = SteadyClock::now();
  double calls = 0, seconds = 0;
  while (seconds < kRoundS) {
    call();
    ++calls;
    seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  }
  return calls / seconds;
}

// A pool of one thread that has computed a graph: before, ggml's barriers wait for threads that there are not.
ggml_threadpool* OneThread() {
  ggml_threadpool_params params = ggml_threadpool_params_default(1);
  ggml_threadpool* const pool = ggml_threadpool_new(&params);
  ggml_context* const context = ggml_init({std::size_t{1} << 20, nullptr, false});
  ggml_cgraph* const graph = ggml_new_graph(context);
  ggml_tensor* const zero = ggml_set_f32(ggml_new_tensor_1d(context, GGML_TYPE_F32, 1), 0);
  ggml_build_forward_expand(graph, ggml_add(context, zero, zero));
  ggml_cplan plan = ggml_graph_plan(graph, 1, pool);
  ggml_graph_compute(graph, &plan);
  ggml_free(context);
  return pool;
}

int Main(int argc, char** argv) {
  if (argc > 2 || (argc == 2 && std::string(argv[1]) != "--json")) {
    std::fprintf(stderr, "usage: shoal_bench_dot_products [--json]\n");
    return 2;
  }
  // As wide as SmolLM2-135M, Gemma-3-270M, and a model with four times their width.
  constexpr std::pair<ggml_type, std::int64_t> kWeights[] = {
      {GGML_TYPE_Q4_1, 576}, {GGML_TYPE_Q4_1, 1536}, {GGML_TYPE_Q5_0, 640},
      {GGML_TYPE_Q5_1, 640}, {GGML_TYPE_Q8_0, 640},  {GGML_TYPE_Q8_0, 2560},
  };
  constexpr std::int64_t kColumns[] = {1, 2, 3, 4, 6, 8, 16, 64};
  ggml_compute_params params{};
  params.nth = 1;
  params.threadpool = OneThread();
  Json checks = Json::array(), figures = Json::array();
  for (const auto& [type, width] : kWeights) {
    const Shape shape{type, kWeightBytes / static_cast<std::int64_t>(ggml_row_size(type, width)), width};
    Products products(shape, 64, params);
    for (const std::int64_t columns : kColumns) {
      std::map<std::string, std::function<void()>> ways;
      ways["dot products"] = [&] { products.ByDotProducts(columns); };
      if (products.By(shoal_ggml_tiles, columns))
        ways["ggml's tiles"] = [&] { products.By(shoal_ggml_tiles, columns); };
      ways["chosen"] = [&] {
        if (!products.By(llamafile_sgemm, columns)) products.ByDotProducts(columns);
      };
      std::map<std::string, std::vector<double>> rates;
      for (int round = 0; round < kRounds; ++round) {
        for (const auto& [way, call] : ways) rates[way].push_back(Rate(call));
      }
      const double products_g = static_cast<double>(shape.rows * shape.width * columns) / 1e9;
      const std::string name = std::string(ggml_type_name(shape.type)) + ", " + std::to_string(shape.rows) +
                               " rows of " + std::to_string(shape.width) + ", " + std::to_string(columns) +
                               (columns == 1 ? " column" : " columns");
      Json figure = {{"name", name}};
      double ggml_best = 0;
      std::fprintf(stderr, "%-45s", name.c_str());
      for (const auto& [way, all] : rates) {
        const double rate = Median(all) * products_g;
        figure[way] = rate;
        if (way == "dot products" || way == "ggml's tiles") ggml_best = std::max(ggml_best, rate);
        std::fprintf(stderr, "  %s %.1f", way.c_str(), rate);
      }
      const double value = figure["chosen"].get<double>() / ggml_best;
      std::fprintf(stderr, "  %.2f %s\n", value, value >= kBar ? "holds" : "MISSED");
      checks.push_back({{"name", name + ": chosen way / the better of ggml's"},
                        {"value", value},
                        {"bar", kBar},
                        {"holds", value >= kBar}});
      figures.push_back(std::move(figure));
    }
  }
  const Json report = {
      {"bench", "dot_products"}, {"unit", "1e9 products a second"}, {"checks", checks}, {"figures", figures}};
  std::printf("%s\n", report.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
