// The products of the header by AVX2.
//
// As in ggml's dot products each of eight lanes sums four neighbouring weights of every block times their numbers, and
// the lanes are added at the end; weights are unpacked as there too. New is what is done once instead of again.
#include "dot_products.h"

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)

namespace shoal {

bool MultiplyByDotProducts(const ggml_compute_params*, std::int64_t, std::int64_t, std::int64_t, const void*,
                           std::int64_t, const void*, std::int64_t, void*, std::int64_t, int, int, int) noexcept {
  return false;
}

}  // namespace shoal

#else

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr int kColumnsAtOnce = 4;                // with more, sums and weights do not fit the registers
constexpr std::int64_t kBlock = 32;              // weights
constexpr std::int64_t kJobBytes = 16 << 10;     // of weights: from the nearest cache for all columns but the first
constexpr std::int64_t kPanelBytes = 256 << 10;  // of columns: from the second one for all rows but the first
constexpr std::int64_t kPanelColumnsMin = 16;    // else the weights come from memory too often
constexpr std::int64_t kPrefetchBytes = 1024;    // how far ahead weights are asked for

// A block of each of some columns, laid out for the products.
template <int kCount>
struct alignas(32) Numbers {
  std::int8_t quants[kCount][kBlock];
  float sum[kColumnsAtOnce];  // of a column's quants, times the scale; where the format of weights has a minimum
  float scale[kCount];
};

// ---- Formats --------------------------------------------------------------------------------------------------------

// A format says how the 32 weights of a block are unpacked, which columns it is multiplied with, whether its quants
// have a sign, and whether its blocks have a minimum, which then stands behind the scale.

__m256i Nibbles(const std::uint8_t (&bytes)[16]) {
  const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  return _mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(0xf));
}

// All bits of a byte are one of the 32 bits.
__m256i SpreadBits(const std::uint8_t (&bytes)[4]) {
  std::int32_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  const __m256i byte_of_each = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i but_one = _mm256_set1_epi64x(0x7fbfdfeff7fbfdfe);
  const __m256i spread = _mm256_or_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of_each), but_one);
  return _mm256_cmpeq_epi8(spread, _mm256_set1_epi8(-1));
}

struct WithMinimum {
  using Column = block_q8_1;
  static constexpr int kColumnType = GGML_TYPE_Q8_1;
  static constexpr bool kSigned = false, kMinimum = true;
};

struct WithSign {
  using Column = block_q8_0;
  static constexpr int kColumnType = GGML_TYPE_Q8_0;
  static constexpr bool kSigned = true, kMinimum = false;
};

struct Q4_1 : WithMinimum {
  using Block = block_q4_1;
  static __m256i Unpacked(const Block& block) { return Nibbles(block.qs); }
};

struct Q5_0 : WithSign {
  using Block = block_q5_0;
  static __m256i Unpacked(const Block& block) {  // 16 less where the fifth bit is not set
    const __m256i less = _mm256_andnot_si256(SpreadBits(block.qh), _mm256_set1_epi8(static_cast<char>(0xf0)));
    return _mm256_or_si256(Nibbles(block.qs), less);
  }
};

struct Q5_1 : WithMinimum {
  using Block = block_q5_1;
  static __m256i Unpacked(const Block& block) {
    return _mm256_or_si256(Nibbles(block.qs), _mm256_and_si256(SpreadBits(block.qh), _mm256_set1_epi8(16)));
  }
};

struct Q8_0 : WithSign {
  using Block = block_q8_0;
  static __m256i Unpacked(const Block& block) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.qs)); }
};

float Single(ggml_half half) { return _cvtsh_ss(half); }
float Scale(const block_q8_1& block) { return Single(block.data.data.d); }
float Scale(const block_q8_0& block) { return Single(block.d); }
float Sum(const block_q8_1& block) { return Single(block.data.data.s); }
float Sum(const block_q8_0&) { return 0; }

// ---- Arithmetic -----------------------------------------------------------------------------------------------------

// Each lane sums four products. No pair of them is too large for 16 bits.
__m256i FourProducts(__m256i unsigned_bytes, __m256i signed_bytes) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned_bytes, signed_bytes);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), unsigned_bytes, signed_bytes);
#else
  return _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1));
#endif
}

// Of all lanes, in ggml's order.
float Total(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_extractf128_ps(lanes, 1), _mm256_castps256_ps128(lanes));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The first two half-precision numbers of a block: its scale and, where it has one, its minimum.
__m128 ScaleAndMinimum(const void* block) {
  std::int32_t halves;
  std::memcpy(&halves, block, sizeof halves);
  return _mm_cvtph_ps(_mm_cvtsi32_si128(halves));
}

// ---- Products -------------------------------------------------------------------------------------------------------

// What MultiplyByDotProducts is called with.
template <typename Format>
struct Operands {
  std::int64_t m, n, k;
  const typename Format::Block* a;
  std::int64_t lda;
  const typename Format::Column* b;
  std::int64_t ldb;
  float* c;
  std::int64_t ldc;
};

using Store = std::vector<Numbers<1>>;

// Some columns and their products, by one thread.
template <typename Format>
class Panel {
 public:
  // Columns `first` to `last`, laid out in `store`.
  Panel(const Operands<Format>& of, std::int64_t first, std::int64_t last, Store& store)
      : of_(of), first_(first), last_(last), store_(store) {
    const auto groups = static_cast<std::size_t>((last - first + kColumnsAtOnce - 1) / kColumnsAtOnce);
    store.resize(std::max(store.size(), groups * GroupSize()));
    ForEachGroup([&]<int kCount>(std::int64_t column, Numbers<kCount>* numbers) {
      for (std::int64_t block = 0; block < of_.k; ++block) {
        for (int i = 0; i < kCount; ++i) {
          const typename Format::Column& from = of_.b[(column + i) * of_.ldb + block];
          std::memcpy(numbers[block].quants[i], from.qs, sizeof from.qs);
          numbers[block].scale[i] = Scale(from);
          numbers[block].sum[i] = Sum(from);
        }
        for (int i = kCount; i < kColumnsAtOnce; ++i) numbers[block].sum[i] = 0;  // multiplied too, and not used
      }
    });
  }

  // With rows `first` to `last`.
  void Multiply(std::int64_t first, std::int64_t last) const {
    ForEachGroup([&]<int kCount>(std::int64_t column, const Numbers<kCount>* numbers) {
      for (std::int64_t row = first; row < last; ++row) MultiplyRow(row, column, numbers);
    });
  }

 private:
  std::size_t GroupSize() const {
    return static_cast<std::size_t>(of_.k) * sizeof(Numbers<kColumnsAtOnce>) / sizeof(Numbers<1>) + 1;
  }

  // f(the first column of a group, its numbers).
  template <typename F>
  void ForEachGroup(const F& f) const {
    Numbers<1>* numbers = store_.data();
    for (std::int64_t column = first_; column < last_; column += kColumnsAtOnce, numbers += GroupSize()) {
      switch (last_ - column) {
        case 1: f(column, numbers); break;
        case 2: f(column, reinterpret_cast<Numbers<2>*>(numbers)); break;
        case 3: f(column, reinterpret_cast<Numbers<3>*>(numbers)); break;
        default: f(column, reinterpret_cast<Numbers<kColumnsAtOnce>*>(numbers));
      }
    }
  }

  template <int kCount>
  void MultiplyRow(std::int64_t row, std::int64_t column, const Numbers<kCount>* numbers) const {
    const typename Format::Block* const weights = of_.a + row * of_.lda;
    __m256 sums[kCount] = {};
    __m128 minimums{};  // lane i is of the i-th column
    for (std::int64_t block = 0; block < of_.k; ++block) {
      _mm_prefetch(reinterpret_cast<const char*>(weights + block) + kPrefetchBytes, _MM_HINT_T0);
      const Numbers<kCount>& with = numbers[block];
      const __m128 scale_and_minimum = ScaleAndMinimum(weights + block);
      const __m256 scale = _mm256_broadcastss_ps(scale_and_minimum);
      const __m256i quants = Format::Unpacked(weights[block]);
      for (int i = 0; i < kCount; ++i) {
        const __m256i column_quants = _mm256_load_si256(reinterpret_cast<const __m256i*>(with.quants[i]));
        const __m256i products = Format::kSigned
                                     ? FourProducts(_mm256_abs_epi8(quants), _mm256_sign_epi8(column_quants, quants))
                                     : FourProducts(quants, column_quants);
        sums[i] =
            _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(with.scale[i])), _mm256_cvtepi32_ps(products), sums[i]);
      }
      if constexpr (Format::kMinimum) {
        minimums = _mm_fmadd_ps(_mm_permute_ps(scale_and_minimum, 0x55), _mm_load_ps(with.sum), minimums);
      }
    }
    for (int i = 0; i < kCount; ++i) {
      const float total = Total(sums[i]);
      of_.c[(column + i) * of_.ldc + row] = Format::kMinimum ? total + minimums[i] : total;
    }
  }

  const Operands<Format>& of_;
  const std::int64_t first_, last_;
  Store& store_;
};

template <typename Format>
bool Multiply(const ggml_compute_params* params, int type_b, const Operands<Format>& of) {
  if (type_b != Format::kColumnType) return false;
  static thread_local Store store;  // threads come back for the next product
  const std::int64_t row_bytes = of.k * static_cast<std::int64_t>(sizeof(typename Format::Block));
  const std::int64_t column_bytes = of.k * static_cast<std::int64_t>(sizeof(Numbers<kColumnsAtOnce>)) / kColumnsAtOnce;
  // Jobs for threads that are not equally fast.
  const std::int64_t rows_of_job = std::max<std::int64_t>(1, std::min(kJobBytes / row_bytes, of.m / (8 * params->nth)));
  const std::int64_t jobs = (of.m + rows_of_job - 1) / rows_of_job;
  const std::int64_t columns = std::max(kPanelColumnsMin, kPanelBytes / column_bytes / kColumnsAtOnce * kColumnsAtOnce);
  for (std::int64_t first = 0; first < of.n; first += columns) {
    if (params->ith == 0) ggml_threadpool_chunk_set(params->threadpool, params->nth);  // a thread begins with its own
    const Panel<Format> panel(of, first, std::min(of.n, first + columns), store);
    ggml_barrier(params->threadpool);
    for (std::int64_t job = params->ith; job < jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
      panel.Multiply(job * rows_of_job, std::min(of.m, (job + 1) * rows_of_job));
    }
    ggml_barrier(params->threadpool);
  }
  return true;
}

}  // namespace

bool MultiplyByDotProducts(const ggml_compute_params* params, std::int64_t m, std::int64_t n, std::int64_t k,
                           const void* a, std::int64_t lda, const void* b, std::int64_t ldb, void* c, std::int64_t ldc,
                           int type_a, int type_b, int type_c) noexcept {
  const auto multiply = [&]<typename Format>(Format) {
    return Multiply<Format>(params, type_b,
                            {m, n, k, static_cast<const typename Format::Block*>(a), lda,
                             static_cast<const typename Format::Column*>(b), ldb, static_cast<float*>(c), ldc});
  };
  if (type_c != GGML_TYPE_F32) return false;
  switch (type_a) {
    case GGML_TYPE_Q4_1: return multiply(Q4_1());
    case GGML_TYPE_Q5_0: return multiply(Q5_0());
    case GGML_TYPE_Q5_1: return multiply(Q5_1());
    case GGML_TYPE_Q8_0: return multiply(Q8_0());
    default: return false;
  }
}

}  // namespace shoal

#endif
