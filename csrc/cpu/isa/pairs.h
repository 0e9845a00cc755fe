#pragma once

// Matrix products of bfloat16 by instructions that multiply pairs of neighbouring terms: tiles (AMX) or
// vectors (AVX512-BF16). Products are exact and sums are floats. Weights stay as they are, so BatchNorm's
// scale is applied to the sums: see activate_scaled().

#include "args/common.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/product.h"
#include "cpu/isa/tiles.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

#if defined(__AVX512BF16__)
constexpr bool kMultipliesPairs = true;
#else
constexpr bool kMultipliesPairs = kHasTiles;
#endif

// Whether products of this element type are computed from pairs.
EFFKERNELS_INLINE constexpr bool by_pairs(Dtype dtype) {
  return kMultipliesPairs && dtype == Dtype::kBFloat16;
}

// Two neighbouring terms of a sum.
struct Pair {
  BFloat16 terms[2];
};

// The terms of a sum are padded with zeros to a multiple of this.
constexpr int kPairTerms = kHasTiles ? 2 * kTilePairs : 2;

// Floats that the packed weights of a chunk take.
inline int64_t packed_floats(int k, int width, Dtype dtype) {
  return by_pairs(dtype) ? int64_t{round_up(k, kPairTerms)} / 2 * width : static_cast<int64_t>(k) * width;
}

// Packs `rows` dense rows of `k` weights as [k / 2][width] pairs, with zeros for what does not exist.
inline void pack_pairs(const BFloat16* weight, int rows, int k, int width, Pair* packed) {
  const int pairs = round_up(k, kPairTerms) / 2;
  // Rows of an even number of terms are rows of pairs, and a pair has the size of a float.
  const int whole = k % 2 == 0 ? k / 2 : 0;
  constexpr int kBlock = kLanes * 8;
  prefetch(weight, smaller(kLanes, rows) * static_cast<int64_t>(k));
  for (int r = 0; r < width; r += kLanes) {
    const BFloat16* own = weight + static_cast<int64_t>(r) * k;
    for (int p = 0; p < pairs; p += 4) {
      if (r + kLanes < rows) prefetch(own + static_cast<int64_t>(kLanes) * k + p * 2 * kLanes, kBlock);
      Vec columns[4];
      if (p + 4 <= whole && r + kLanes <= rows) {
        load_columns(reinterpret_cast<const float*>(own + 2 * p), k / 2, columns);
      } else {
        BFloat16 block[kLanes * 8] = {};
        for (int i = 0; i < smaller(kLanes, rows - r); ++i) {
          for (int j = 0; j < smaller(8, k - 2 * p); ++j) {
            block[i * 8 + j] = own[static_cast<int64_t>(i) * k + 2 * p + j];
          }
        }
        load_columns(reinterpret_cast<const float*>(block), 4, columns);
      }
      for (int j = 0; j < smaller(4, pairs - p); ++j) {
        store(reinterpret_cast<float*>(packed + static_cast<int64_t>(p + j) * width + r), columns[j]);
      }
    }
  }
}

// The weights of a chunk for products of either kind: with pairs, `scale` and `shift` are for the sums;
// without, the scale is in the weights (see pack_folded).
inline void pack_product(const void* weight, Dtype dtype, int64_t first, int channels, int k,
                         const Norm& norm, const float* gate, int width, float* packed, float* scale,
                         float* shift) {
  if (!by_pairs(dtype)) {
    return pack_folded(weight, dtype, first, channels, k, norm, gate, width, packed, scale, shift);
  }
  fold_norm(norm, first, channels, scale, shift);
  pack_pairs(static_cast<const BFloat16*>(weight) + first * k, channels, k, width,
             reinterpret_cast<Pair*>(packed));
}

// Narrowed rows are padded with zeros to a multiple of this: a cache line.
constexpr int kNarrowTerms = 32;

// Converts `count` elements of `from`, from element `first` on, times the gate, if any.
void narrow_row(const void* from, Dtype dtype, int64_t first, int count, const float* gate, BFloat16* to);

// Rows of `k` elements, `stride` apart.
struct PairRows {
  const BFloat16* x;
  int64_t stride;
  int k;
};

// Computes result[i][0..width) = rows[i] * packed for `count` rows, without scale and shift. One object for
// each thread and chunk of work: it has the thread's tile registers as long as it lives.
class PairProduct {
 public:
  // Rows that are multiplied together.
  static constexpr int kRows = 2 * kTileRows;

  void multiply(const PairRows& rows, int count, const float* packed, int width, float* result, Ahead& ahead);

 private:
#if defined(__AMX_BF16__) || defined(EFFKERNELS_TILE_TWIN)
  void configure(int count);
  template <int kBlocks, int kVectors>
  void multiply_tiles(const PairRows& rows, const Pair* packed, int width, float* result, Ahead& ahead);
  template <int kBlocks>
  void multiply_block(const PairRows& rows, const Pair* packed, int width, float* result, Ahead& ahead);

  Tiles tiles_;
  int configured_ = 0;                                  // rows for which tiles are configured
  alignas(64) BFloat16 rest_[kRows * kPairTerms] = {};  // the last terms of rows whose number is not whole
#endif
};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
