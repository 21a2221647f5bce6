// The products of the header by AVX2.
//
// A lane holds 32 bits: four weights of its row, or their sum with four numbers of the column, which are the same for
// all lanes. ggml's dot products have a sum in each of eight lanes, of every eighth four, and add those at the end;
// here they are eight vectors, added in the same order.
#include "row_tiles.h"

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)

namespace shoal {

bool MultiplyByRowTiles(const ggml_compute_params*, std::int64_t, std::int64_t, std::int64_t, const void*, std::int64_t,
                        const void*, std::int64_t, void*, std::int64_t, int, int, int) noexcept {
  return false;
}

bool HasRowTiles(int) noexcept { return false; }

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
constexpr std::int64_t kPanelColumns = 128;  // whose scales are kept
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

// A block, of 32 weights, of each of eight rows. Lane r of `quants[i]` holds weights 4i to 4i + 3 of row r.
struct TileBlock {
  __m256i quants[8];
  __m256 scale, minimum;
};

// Of a block of a column.
struct ColumnBlock {
  float scale, sum;  // `sum`: of its numbers, times the scale; where the format of weights has a minimum
};

// Of a column, while its blocks are multiplied: lane r is of row r.
struct Sums {
  __m256 fours[8];
  __m256 minimums;
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

// A format says how a block of eight rows is unpacked, whether its quants have a sign or its blocks a minimum, and from
// how many columns on its row tiles are faster than dot products.

struct WithMinimum {
  using Column = block_q8_1;
  static constexpr int kColumnType = GGML_TYPE_Q8_1;
  static constexpr bool kSigned = false, kMinimum = true;
  static constexpr std::int64_t kColumnsMin = 2;
};

struct WithSign {
  using Column = block_q8_0;
  static constexpr int kColumnType = GGML_TYPE_Q8_0;
  static constexpr bool kSigned = true, kMinimum = false;
};

struct Q4_1 : WithMinimum {
  using Block = block_q4_1;
  static void Unpack(const Rows& rows, TileBlock& tile) {
    UnpackNibbles(rows, offsetof(Block, qs), tile);
    tile.scale = Halves(rows, 0);
    tile.minimum = Halves(rows, sizeof(ggml_half));
  }
};

struct Q5_0 : WithSign {
  using Block = block_q5_0;
  static constexpr std::int64_t kColumnsMin = 2;
  static void Unpack(const Rows& rows, TileBlock& tile) {
    UnpackNibbles(rows, offsetof(Block, qs), tile);
    AddFifthBits(rows, offsetof(Block, qh), tile);
    for (__m256i& quants : tile.quants) quants = _mm256_sub_epi8(quants, _mm256_set1_epi8(16));
    tile.scale = Halves(rows, 0);
  }
};

struct Q5_1 : WithMinimum {
  using Block = block_q5_1;
  static void Unpack(const Rows& rows, TileBlock& tile) {
    UnpackNibbles(rows, offsetof(Block, qs), tile);
    AddFifthBits(rows, offsetof(Block, qh), tile);
    tile.scale = Halves(rows, 0);
    tile.minimum = Halves(rows, sizeof(ggml_half));
  }
};

struct Q8_0 : WithSign {
  using Block = block_q8_0;
  static constexpr std::int64_t kColumnsMin = 4;
  static void Unpack(const Rows& rows, TileBlock& tile) {
    for (std::size_t half = 0; half < 2; ++half) {
      const Vectors<4> quants = Transposed(rows, offsetof(Block, qs) + 16 * half);
      std::copy(quants.at, quants.at + 4, tile.quants + 4 * half);
    }
    tile.scale = Halves(rows, 0);
  }
};

// ---- Columns --------------------------------------------------------------------------------------------------------

float Single(ggml_half half) { return _cvtsh_ss(half); }

ColumnBlock Scales(const block_q8_1& block) { return {Single(block.data.data.d), Single(block.data.data.s)}; }
ColumnBlock Scales(const block_q8_0& block) { return {Single(block.d), 0}; }

// ---- Products -------------------------------------------------------------------------------------------------------

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
    sums_.resize(static_cast<std::size_t>(last - first));
    scales_.resize(static_cast<std::size_t>((last - first) * k_));
    ColumnBlock* at = scales_.data();
    for (std::int64_t column = first; column < last; ++column) {
      for (std::int64_t block = 0; block < k_; ++block) *at++ = Scales(b_[column * ldb_ + block]);
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
    for (std::int64_t block = 0; block < k_; block += kTileBlocks) {
      const std::int64_t blocks = std::min(kTileBlocks, k_ - block);
      for (std::int64_t i = 0; i < blocks; ++i) {
        Format::Unpack(rows, tile[i]);
        for (const std::uint8_t*& at : rows) {
          // The next tile: rows that are read side by side look to a processor as if they came from anywhere.
          _mm_prefetch(reinterpret_cast<const char*>(at + tile_bytes), _MM_HINT_T0);
          at += sizeof(Block);
        }
      }
      for (std::int64_t column = first_; column < last_; ++column) {
        const bool is_last = block + blocks == k_;
        Sums sums = block == 0 ? Sums{} : sums_[static_cast<std::size_t>(column - first_)];
        Add(tile, column, block, blocks, sums);
        if (is_last) {
          Store(Total(sums), row, column);
        } else {
          sums_[static_cast<std::size_t>(column - first_)] = sums;
        }
      }
    }
  }

 private:
  using Block = typename Format::Block;
  using Column = typename Format::Column;

  // What some blocks of a column give with the tile.
  [[gnu::always_inline]] inline void Add(const TileBlock* tile, std::int64_t column, std::int64_t block,
                                         std::int64_t blocks, Sums& sums) const {
    const Column* at = b_ + column * ldb_ + block;
    const ColumnBlock* scales = &scales_[static_cast<std::size_t>((column - first_) * k_ + block)];
    Sums now = sums;
    for (std::int64_t i = 0; i < blocks; ++i) {
      const __m256 scale = _mm256_mul_ps(tile[i].scale, _mm256_set1_ps(scales[i].scale));
      ForEach<8>([&](auto j) {
        std::int32_t four;
        std::memcpy(&four, at[i].qs + 4 * j, sizeof four);
        const __m256i numbers = _mm256_set1_epi32(four), weights = tile[i].quants[j];
        const __m256i pairs = Format::kSigned
                                  ? _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(numbers, weights))
                                  : _mm256_maddubs_epi16(weights, numbers);
        const __m256i products = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        now.fours[j] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(products), now.fours[j]);
      });
      if constexpr (Format::kMinimum) {
        now.minimums = _mm256_fmadd_ps(tile[i].minimum, _mm256_set1_ps(scales[i].sum), now.minimums);
      }
    }
    sums = now;
  }

  static __m256 Total(const Sums& sums) {
    const auto fours = [&](int i) { return _mm256_add_ps(sums.fours[i + 4], sums.fours[i]); };
    const __m256 total = _mm256_add_ps(_mm256_add_ps(fours(0), fours(2)), _mm256_add_ps(fours(1), fours(3)));
    return Format::kMinimum ? _mm256_add_ps(total, sums.minimums) : total;
  }

  void Store(__m256 values, std::int64_t row, std::int64_t column) {
    float* const at = c_ + column * ldc_ + row;
    if (row + kRows <= m_) return _mm256_storeu_ps(at, values);
    std::memcpy(at, &values, static_cast<std::size_t>(m_ - row) * sizeof(float));
  }

  const std::int64_t m_, k_, lda_, ldb_, ldc_;
  const Block* const a_;
  const Column* const b_;
  float* const c_;
  std::int64_t first_ = 0, last_ = 0;  // columns
  std::vector<ColumnBlock> scales_;    // [column - first_][block]
  std::vector<Sums> sums_;             // [column - first_]
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
    default: return false;
  }
}

bool HasRowTiles(int type_a) noexcept {
  return type_a == GGML_TYPE_Q4_1 || type_a == GGML_TYPE_Q5_0 || type_a == GGML_TYPE_Q5_1 || type_a == GGML_TYPE_Q8_0;
}

}  // namespace shoal

#endif
