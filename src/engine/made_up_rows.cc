// Each block of numbers has a scale of its own.
#include "engine/made_up_rows.h"

#include <algorithm>
#include <cmath>

#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr std::int64_t kDistinctValues = 1 << 18;  // in whole rows, at least one
constexpr float kSpread = 0.02F;                   // of weights: values stay in the range of numbers, layer after layer
// So many values share a scale, and scales differ by so many factors of two: those of a layer of SmolLM2 have a
// standard deviation of 0.3 to 0.8.
constexpr std::size_t kBlock = 32;
constexpr float kScaleOctaves = 1.4F;

}  // namespace

std::vector<std::uint8_t> MadeUpRows(ggml_type type, std::int64_t width) {
  const std::int64_t count = std::max<std::int64_t>(kDistinctValues / width, 1);
  Rng random(1);
  const auto uniform = [&random] { return static_cast<float>(random.Uniform()); };
  std::vector<float> values(static_cast<std::size_t>(width * count));
  float scale = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % kBlock == 0) scale = kSpread * std::exp2(kScaleOctaves * (uniform() - 0.5F));
    values[i] = scale * (uniform() + uniform() + uniform() - 1.5F);
  }
  std::vector<std::uint8_t> rows(ggml_row_size(type, width) * static_cast<std::size_t>(count));
  ggml_quantize_chunk(type, values.data(), rows.data(), 0, count, width, nullptr);
  return rows;
}

}  // namespace shoal
