// The products of the header by AVX2.
//
// A lane holds 32 bits: four weights of its row, or their sum with four numbers of the column, which are the same for
// all lanes.
#include "row_tiles.h"

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)

namespace shoal {

bool MultiplyByRowTiles(const ggml_compute_params*, std::int64_t, std::int64_t, std::int64_t, const void*, std::int64_t,
                        const void*, std::int64_t, void*, std::int64_t, int, int, int) noexcept {
  return false;
}

}  // namespace shoal

#else

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr std::int64_t kRows = 8;            // of a tile
constexpr std::int64_t kTileBlocks = 32;     // of each row unpacked at a time: they stay in the first-level cache
constexpr std::int64_t kColumnsAtOnce = 6;   // whose sums are in registers
constexpr std::int64_t kPanelColumns = 128;  // whose scales are kept
constexpr std::size_t kCacheLine = 64;
// Dot products are faster with VNNI; so many more columns there have to be then, at a guess.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr std::int64_t kMoreColumns = 2;
#else
constexpr std::int64_t kMoreColumns = 0;
#endif

template <std::size_t kCount>
struct Vectors {  // std::array would lose their alignment
  __m256i at[kCount];
};

template <typename F, std::size_t... kIndices>
[[gnu::always_inline]] inline void ForEachOf(F& f, std::index_sequence<kIndices...>) {
  (f(std::integral_constant<std::size_t, kIndices>{}), ...);
}
// f(0), f(1), ...: what is counted by constants stays in registers.
template <std::size_t kCount, typename F>
[[gnu::always_inline]] inline void ForEach(F&& f) {
  ForEachOf(f, std::make_index_sequence<kCount>{});
}

using Rows = std::array<const std::uint8_t*, kRows>;  // where they are in the weights

// 32 weights of each of eight rows. Lane r of `quants[i]` holds weights 4i to 4i + 3 of row r.
struct TileBlock {
  __m256i quants[8];
  __m256i half_scales[2];  // of 16 weights each, twice in each lane; where the format has them
  __m256 scale, minimum;
};

// Of 32 numbers of a column: their scale, and that times their sum.
struct ColumnBlock {
  float scale, sum;
};

// ---- Unpacking ------------------------------------------------------------------------------------------------------

// Of 16 bytes of each row: lane r of the i-th has bytes 4i to 4i + 3 of row r.
Vectors<4> Transposed(const Rows& rows, std::size_t offset) {
  const auto pair = [&](std::size_t row) {
    const auto load = [&](std::size_t r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + offset));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load(row)), load(row + 4), 1);
  };
  const __m256i row0 = pair(0), row1 = pair(1), row2 = pair(2), row3 = pair(3);
  const __m256i low01 = _mm256_unpacklo_epi32(row0, row1), high01 = _mm256_unpackhi_epi32(row0, row1);
  const __m256i low23 = _mm256_unpacklo_epi32(row2, row3), high23 = _mm256_unpackhi_epi32(row2, row3);
  return {{_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
           _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)}};
}

template <typename T>
T At(const Rows& rows, std::size_t row, std::size_t offset) {
  T value;
  std::memcpy(&value, rows[row] + offset, sizeof value);
  return value;
}

// A half-precision number of each row.
__m256 Halves(const Rows& rows, std::size_t offset) {
  const auto at = [&](std::size_t row) { return At<std::int16_t>(rows, row, offset); };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}

__m256i LowNibbles(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(0xf)); }
__m256i HighNibbles(__m256i bytes) { return LowNibbles(_mm256_srli_epi16(bytes, 4)); }
// The bits of `mask` in each byte, after a shift to the left (to the right where it is negative).
__m256i Bits(__m256i bytes, int left, char mask) {
  const __m256i shifted = left >= 0 ? _mm256_slli_epi16(bytes, left) : _mm256_srli_epi16(bytes, -left);
  return _mm256_and_si256(shifted, _mm256_set1_epi8(mask));
}

// Four bits each: the first 16 weights in the low halves of the bytes, the others in the high ones.
void UnpackNibbles(const Rows& rows, std::size_t offset, TileBlock& tile) {
  const Vectors<4> packed = Transposed(rows, offset);
  for (std::size_t i = 0; i < 4; ++i) {
    tile.quants[i] = LowNibbles(packed.at[i]);
    tile.quants[i + 4] = HighNibbles(packed.at[i]);
  }
}

// The fifth bits of 32 weights, one after the other.
void AddFifthBits(const Rows& rows, std::size_t offset, TileBlock& tile) {
  const auto at = [&](std::size_t row) { return At<std::int32_t>(rows, row, offset); };
  const __m256i bits = _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
  for (int i = 0; i < 8; ++i) {
    const __m256i four = _mm256_and_si256(_mm256_srli_epi32(bits, 4 * i), _mm256_set1_epi32(0xf));
    // Each bit of the factor puts one of the four where it belongs, bit j to bit 4 of byte j.
    const __m256i spread = _mm256_mullo_epi32(four, _mm256_set1_epi32(0x02040810));
    tile.quants[i] = _mm256_or_si256(tile.quants[i], _mm256_and_si256(spread, _mm256_set1_epi8(16)));
  }
}

// ---- Formats --------------------------------------------------------------------------------------------------------

// A format says how a block of eight rows becomes kTiles of TileBlock; of how many groups of four the products have
// room in 16 bits; whether its quants have a sign, whether its scales are of 16 weights, and whether something is added
// to every weight; and from how many columns on its row tiles are faster than ggml's ways. Of Q5_K and Q6_K products
// with eight columns and more never come here: ggml's tiled kernels take them before.

struct Q4_1 {
  using Block = block_q4_1;
  using Column = block_q8_1;
  static constexpr int kColumnType = GGML_TYPE_Q8_1;
  static constexpr int kTiles = 1, kFours = 8;  // 16 products of 15 * 127
  static constexpr bool kSigned = false, kHalfScales = false, kMinimum = true;
  static constexpr std::int64_t kColumnsMin = 2;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    UnpackNibbles(rows, offsetof(Block, qs), *tile);
    tile->scale = Halves(rows, 0);
    tile->minimum = Halves(rows, sizeof(ggml_half));
  }
};

struct Q5_0 {
  using Block = block_q5_0;
  using Column = block_q8_0;
  static constexpr int kColumnType = GGML_TYPE_Q8_0;
  static constexpr int kTiles = 1, kFours = 4;  // 8 products of 31 * 127
  static constexpr bool kSigned = false, kHalfScales = false, kMinimum = true;
  static constexpr std::int64_t kColumnsMin = 2;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    UnpackNibbles(rows, offsetof(Block, qs), *tile);
    AddFifthBits(rows, offsetof(Block, qh), *tile);
    tile->scale = Halves(rows, 0);
    tile->minimum = _mm256_mul_ps(tile->scale, _mm256_set1_ps(-16));
  }
};

struct Q5_1 : Q5_0 {
  using Block = block_q5_1;
  using Column = block_q8_1;
  static constexpr int kColumnType = GGML_TYPE_Q8_1;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    UnpackNibbles(rows, offsetof(Block, qs), *tile);
    AddFifthBits(rows, offsetof(Block, qh), *tile);
    tile->scale = Halves(rows, 0);
    tile->minimum = Halves(rows, sizeof(ggml_half));
  }
};

struct Q8_0 {
  using Block = block_q8_0;
  using Column = block_q8_0;
  static constexpr int kColumnType = GGML_TYPE_Q8_0;
  static constexpr int kTiles = 1, kFours = 1;  // 2 products of 127 * 127
  static constexpr bool kSigned = true, kHalfScales = false, kMinimum = false;
  static constexpr std::int64_t kColumnsMin = 4;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    for (std::size_t half = 0; half < 2; ++half) {
      const Vectors<4> quants = Transposed(rows, offsetof(Block, qs) + 16 * half);
      std::copy(quants.at, quants.at + 4, tile->quants + 4 * half);
    }
    tile->scale = Halves(rows, 0);
  }
};

struct Q5_K {
  using Block = block_q5_K;
  using Column = block_q8_K;
  static constexpr int kColumnType = GGML_TYPE_Q8_K;
  static constexpr int kTiles = QK_K / 32, kFours = 4;
  static constexpr bool kSigned = false, kHalfScales = false, kMinimum = true;
  static constexpr std::int64_t kColumnsMin = 3;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    for (std::size_t half = 0; half < 2; ++half) {
      const Vectors<4> fifth = Transposed(rows, offsetof(Block, qh) + 16 * half);
      for (int pair = 0; pair < kTiles / 2; ++pair) {
        const Vectors<4> packed =
            Transposed(rows, offsetof(Block, qs) + 32 * static_cast<std::size_t>(pair) + 16 * half);
        for (std::size_t i = 0; i < 4; ++i) {
          const int left = 4 - 2 * pair;
          tile[2 * pair].quants[4 * half + i] = _mm256_or_si256(LowNibbles(packed.at[i]), Bits(fifth.at[i], left, 16));
          tile[2 * pair + 1].quants[4 * half + i] =
              _mm256_or_si256(HighNibbles(packed.at[i]), Bits(fifth.at[i], left - 1, 16));
        }
      }
    }
    alignas(32) float scales[kTiles][kRows], minimums[kTiles][kRows];  // six bits each
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::uint8_t* const packed = rows[row] + offsetof(Block, scales);
      for (int i = 0; i < 4; ++i) {
        scales[i][row] = static_cast<float>(packed[i] & 63);
        minimums[i][row] = static_cast<float>(packed[i + 4] & 63);
        scales[i + 4][row] = static_cast<float>((packed[i + 8] & 15) | packed[i] >> 6 << 4);
        minimums[i + 4][row] = static_cast<float>(packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4);
      }
    }
    const __m256 scale = Halves(rows, 0);
    const __m256 minimum = _mm256_sub_ps(_mm256_setzero_ps(), Halves(rows, sizeof(ggml_half)));
    for (int i = 0; i < kTiles; ++i) {
      tile[i].scale = _mm256_mul_ps(scale, _mm256_load_ps(scales[i]));
      tile[i].minimum = _mm256_mul_ps(minimum, _mm256_load_ps(minimums[i]));
    }
  }
};

struct Q6_K {
  using Block = block_q6_K;
  using Column = block_q8_K;
  static constexpr int kColumnType = GGML_TYPE_Q8_K;
  static constexpr int kTiles = QK_K / 32, kFours = 4;  // 8 products of 32 * 127
  static constexpr bool kSigned = true, kHalfScales = true, kMinimum = false;
  static constexpr std::int64_t kColumnsMin = 4;
  static void Unpack(const Rows& rows, TileBlock* tile) {
    const __m256 scale = Halves(rows, offsetof(Block, d));
    const Vectors<4> scales = Transposed(rows, offsetof(Block, scales));
    for (int i = 0; i < kTiles; ++i) {
      tile[i].scale = scale;
      for (int half = 0; half < 2; ++half) tile[i].half_scales[half] = Twice(scales.at[i / 2], 2 * (i % 2) + half);
    }
    for (std::size_t half = 0; half < 4; ++half) {  // 64 weights: 16 of each of four tiles
      TileBlock* const four = tile + half / 2 * 4;
      const std::size_t at = half / 2 * 64 + half % 2 * 16, first = half % 2 * 4;
      const Vectors<4> low = Transposed(rows, offsetof(Block, ql) + at);
      const Vectors<4> high = Transposed(rows, offsetof(Block, ql) + at + 32);
      const Vectors<4> two = Transposed(rows, offsetof(Block, qh) + half * 16);
      for (std::size_t i = 0; i < 4; ++i) {
        const auto put = [&](int to, __m256i nibbles, int left) {
          const __m256i quants = _mm256_or_si256(nibbles, Bits(two.at[i], left, 0x30));
          four[to].quants[first + i] = _mm256_sub_epi8(quants, _mm256_set1_epi8(32));
        };
        put(0, LowNibbles(low.at[i]), 4);
        put(1, LowNibbles(high.at[i]), 2);
        put(2, HighNibbles(low.at[i]), 0);
        put(3, HighNibbles(high.at[i]), -2);
      }
    }
  }
  // A byte of each lane as two numbers of 16 bits.
  static __m256i Twice(__m256i bytes, int byte) {
    const __m256i high = _mm256_sll_epi32(bytes, _mm_cvtsi32_si128(24 - 8 * byte));  // the byte is the highest
    const __m256i signs = _mm256_srai_epi32(high, 24);
    return _mm256_blend_epi16(signs, _mm256_slli_epi32(signs, 16), 0xaa);
  }
};

// ---- Columns --------------------------------------------------------------------------------------------------------

float Single(ggml_half half) { return _cvtsh_ss(half); }

void Scales(const block_q8_1& block, ColumnBlock* scales) {
  *scales = {Single(block.data.data.d), Single(block.data.data.s)};
}

void Scales(const block_q8_0& block, ColumnBlock* scales) {
  std::int32_t sum = 0;
  for (const std::int8_t number : block.qs) sum += number;
  const float scale = Single(block.d);
  *scales = {scale, scale * static_cast<float>(sum)};
}

void Scales(const block_q8_K& block, ColumnBlock* scales) {
  for (int i = 0; i < QK_K / 32; ++i) {
    scales[i] = {block.d, block.d * static_cast<float>(block.bsums[2 * i] + block.bsums[2 * i + 1])};
  }
}

// ---- Products -------------------------------------------------------------------------------------------------------

// Weights of `tile` times the 32 numbers from `columns[c]` on: lane r is of row r.
template <typename Format, std::size_t kCount>
[[gnu::always_inline]] inline Vectors<kCount> Sums(const TileBlock& tile,
                                                   const std::array<const std::int8_t*, kCount>& columns) {
  Vectors<kCount> sums;
  ForEach<kCount>([&](auto c) { sums.at[c] = _mm256_setzero_si256(); });
  for (int i = 0; i < 8; i += Format::kFours) {
    Vectors<kCount> pairs;
    ForEach<kCount>([&](auto c) { pairs.at[c] = _mm256_setzero_si256(); });
#pragma GCC unroll 1  // or compilers begin with all products and run out of registers
    for (int j = i; j < i + Format::kFours; ++j) {
      const __m256i weights = tile.quants[j];
      const __m256i magnitudes = Format::kSigned ? _mm256_abs_epi8(weights) : weights;
      ForEach<kCount>([&](auto c) {
        std::int32_t four;
        std::memcpy(&four, columns[c] + 4 * j, sizeof four);
        const __m256i same = _mm256_set1_epi32(four);
        const __m256i numbers = Format::kSigned ? _mm256_sign_epi8(same, weights) : same;
        pairs.at[c] = _mm256_add_epi16(pairs.at[c], _mm256_maddubs_epi16(magnitudes, numbers));
      });
    }
    const __m256i scale = Format::kHalfScales ? tile.half_scales[i / 4] : _mm256_set1_epi16(1);
    ForEach<kCount>([&](auto c) { sums.at[c] = _mm256_add_epi32(sums.at[c], _mm256_madd_epi16(pairs.at[c], scale)); });
  }
  return sums;
}

// What MultiplyByRowTiles is called with.
struct Operands {
  std::int64_t m, n, k;
  const void* a;
  std::int64_t lda;
  const void* b;
  std::int64_t ldb;
  void* c;
  std::int64_t ldc;
  int type_b;
};

// Its products, by one of its threads.
template <typename Format>
class Product {
 public:
  explicit Product(const Operands& of)
      : m_(of.m),
        k_(of.k),
        lda_(of.lda),
        ldb_(of.ldb),
        ldc_(of.ldc),
        a_(static_cast<const Block*>(of.a)),
        b_(static_cast<const Column*>(of.b)),
        c_(static_cast<float*>(of.c)) {}

  // Columns `first` to `last` are multiplied from now on.
  void Take(std::int64_t first, std::int64_t last) {
    first_ = first;
    last_ = last;
    scales_.resize(static_cast<std::size_t>((last - first) * k_ * Format::kTiles));
    ColumnBlock* at = scales_.data();
    for (std::int64_t column = first; column < last; ++column) {
      for (std::int64_t block = 0; block < k_; ++block, at += Format::kTiles) Scales(b_[column * ldb_ + block], at);
    }
  }

  // The eight rows from `row` on, or those that there are.
  void Multiply(std::int64_t row) {
    Rows rows;
    for (std::int64_t r = 0; r < kRows; ++r) {
      rows[static_cast<std::size_t>(r)] = reinterpret_cast<const std::uint8_t*>(a_ + std::min(row + r, m_ - 1) * lda_);
    }
    const std::size_t tile_bytes = static_cast<std::size_t>(kRows * lda_) * sizeof(Block);
    TileBlock tile[kTileBlocks];
    constexpr std::int64_t kBlocks = kTileBlocks / Format::kTiles;
    for (std::int64_t block = 0; block < k_; block += kBlocks) {
      const std::int64_t blocks = std::min(kBlocks, k_ - block);
      for (std::int64_t i = 0; i < blocks; ++i) {
        Format::Unpack(rows, tile + i * Format::kTiles);
        for (const std::uint8_t*& at : rows) {
          // The next tile: rows that are read side by side look to a processor as if they came from anywhere.
          for (std::size_t line = 0; line < sizeof(Block); line += kCacheLine) {
            _mm_prefetch(reinterpret_cast<const char*>(at + tile_bytes + line), _MM_HINT_T0);
          }
          at += sizeof(Block);
        }
      }
      for (std::int64_t column = first_; column < last_;) {  // in groups of about the same size
        const std::int64_t groups = (last_ - column + kColumnsAtOnce - 1) / kColumnsAtOnce;
        const std::int64_t count = (last_ - column + groups - 1) / groups;
        switch (count) {
          case 1: Add<1>(tile, row, column, block, blocks); break;
          case 2: Add<2>(tile, row, column, block, blocks); break;
          case 3: Add<3>(tile, row, column, block, blocks); break;
          case 4: Add<4>(tile, row, column, block, blocks); break;
          case 5: Add<5>(tile, row, column, block, blocks); break;
          default: Add<kColumnsAtOnce>(tile, row, column, block, blocks);
        }
        column += count;
      }
    }
  }

 private:
  using Block = typename Format::Block;
  using Column = typename Format::Column;

  // To C, of some columns, what their blocks from `block` on give with the tile; what is there is of those before.
  template <std::size_t kCount>
  void Add(const TileBlock* tile, std::int64_t row, std::int64_t column, std::int64_t block, std::int64_t blocks) {
    __m256 results[kCount];
    std::array<const Column*, kCount> columns;
    std::array<const ColumnBlock*, kCount> scales;
    ForEach<kCount>([&](auto c) {
      const std::int64_t at = column + static_cast<std::int64_t>(c());
      results[c] = block == 0 ? _mm256_setzero_ps() : Load(row, at);
      columns[c] = b_ + at * ldb_ + block;
      scales[c] = &scales_[static_cast<std::size_t>(((at - first_) * k_ + block) * Format::kTiles)];
    });
    for (std::int64_t i = 0; i < blocks * Format::kTiles; ++i) {
      std::array<const std::int8_t*, kCount> numbers;
      ForEach<kCount>([&](auto c) { numbers[c] = columns[c][i / Format::kTiles].qs + i % Format::kTiles * 32; });
      const Vectors<kCount> sums = Sums<Format, kCount>(tile[i], numbers);
      ForEach<kCount>([&](auto c) {
        const __m256 scale = _mm256_mul_ps(tile[i].scale, _mm256_set1_ps(scales[c][i].scale));
        results[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums.at[c]), scale, results[c]);
        if constexpr (Format::kMinimum) {
          results[c] = _mm256_fmadd_ps(tile[i].minimum, _mm256_set1_ps(scales[c][i].sum), results[c]);
        }
      });
    }
    ForEach<kCount>([&](auto c) { Store(results[c], row, column + static_cast<std::int64_t>(c())); });
  }

  std::size_t Bytes(std::int64_t row) const {
    return static_cast<std::size_t>(std::min(kRows, m_ - row)) * sizeof(float);
  }
  __m256 Load(std::int64_t row, std::int64_t column) const {
    const float* const at = c_ + column * ldc_ + row;
    if (row + kRows <= m_) return _mm256_loadu_ps(at);
    __m256 values = _mm256_setzero_ps();
    std::memcpy(&values, at, Bytes(row));
    return values;
  }
  void Store(__m256 values, std::int64_t row, std::int64_t column) {
    float* const at = c_ + column * ldc_ + row;
    if (row + kRows <= m_) return _mm256_storeu_ps(at, values);
    std::memcpy(at, &values, Bytes(row));
  }

  const std::int64_t m_, k_, lda_, ldb_, ldc_;
  const Block* const a_;
  const Column* const b_;
  float* const c_;
  std::int64_t first_ = 0, last_ = 0;  // columns
  std::vector<ColumnBlock> scales_;    // [column - first_][32 numbers]
};

// False where ggml's ways are faster.
template <typename Format>
bool Multiply(const ggml_compute_params* params, const Operands& of) {
  if (of.type_b != Format::kColumnType || of.n < Format::kColumnsMin + kMoreColumns) return false;
  Product<Format> product(of);
  const std::int64_t tiles = (of.m + kRows - 1) / kRows;
  // Jobs for threads that are not equally fast, each with some tiles.
  const std::int64_t tiles_of_job = std::clamp<std::int64_t>(tiles / (8 * params->nth), 1, 16);
  const std::int64_t jobs = (tiles + tiles_of_job - 1) / tiles_of_job;
  for (std::int64_t first = 0; first < of.n; first += kPanelColumns) {
    if (params->ith == 0) ggml_threadpool_chunk_set(params->threadpool, params->nth);  // a thread begins with its own
    product.Take(first, std::min(of.n, first + kPanelColumns));
    ggml_barrier(params->threadpool);
    for (std::int64_t job = params->ith; job < jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
      for (std::int64_t tile = job * tiles_of_job; tile < std::min(tiles, (job + 1) * tiles_of_job); ++tile) {
        product.Multiply(tile * kRows);
      }
    }
    ggml_barrier(params->threadpool);
  }
  return true;
}

}  // namespace

bool MultiplyByRowTiles(const ggml_compute_params* params, std::int64_t m, std::int64_t n, std::int64_t k,
                        const void* a, std::int64_t lda, const void* b, std::int64_t ldb, void* c, std::int64_t ldc,
                        int type_a, int type_b, int type_c) noexcept {
  const Operands of{m, n, k, a, lda, b, ldb, c, ldc, type_b};
  if (type_c != GGML_TYPE_F32) return false;
  switch (type_a) {
    case GGML_TYPE_Q4_1: return Multiply<Q4_1>(params, of);
    case GGML_TYPE_Q5_0: return Multiply<Q5_0>(params, of);
    case GGML_TYPE_Q5_1: return Multiply<Q5_1>(params, of);
    case GGML_TYPE_Q8_0: return Multiply<Q8_0>(params, of);
    case GGML_TYPE_Q5_K: return Multiply<Q5_K>(params, of);
    case GGML_TYPE_Q6_K: return Multiply<Q6_K>(params, of);
    default: return false;
  }
}

}  // namespace shoal

#endif
