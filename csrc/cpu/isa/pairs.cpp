#include "cpu/isa/pairs.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Two vectors of floats as bfloat16, `low` first.
EFFKERNELS_INLINE void store_narrow(BFloat16* to, Vec low, Vec high) {
#if defined(__AVX512BF16__)
  // Flushes numbers below 1.2e-38 to zero, as the products do.
  const __m512bh both = _mm512_cvtne2ps_pbh(high.v, low.v);
  std::memcpy(to, &both, sizeof both);
#else
  store(to, low);
  store(to + kLanes, high);
#endif
}

// As many of kLanes elements as there are, as floats, times the gate; the others are 0.
template <class T>
EFFKERNELS_INLINE Vec gated(const T* from, const float* gate, int count) {
  if (count <= 0) return broadcast(0.0f);
  const Vec x = load_up_to(from, count);
  return gate == nullptr ? x : x * load_up_to(gate, count);
}

}  // namespace

void narrow_row(const void* from, Dtype dtype, int64_t first, int count, const float* gate, BFloat16* to) {
  with_dtype(dtype, [&](const auto* type) {
    const auto* in = static_cast<decltype(type)>(from) + first;
    const int padded = round_up(count, kNarrowTerms);
    for (int i = 0; i < padded; i += 2 * kLanes) {
      const int next = i + kLanes;
      const float* own = gate == nullptr ? nullptr : gate + i;
      const Vec low = gated(in + i, own, count - i);
      const Vec high = gated(in + next, own == nullptr ? nullptr : own + kLanes, count - next);
      store_narrow(to + i, low, high);
    }
  });
}

#if defined(__AMX_BF16__) || defined(EFFKERNELS_TILE_TWIN)

namespace {

// Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights. Two tiles of rows times two of weights take one load
// for each product; a single tile of rows is multiplied by up to four of weights.
constexpr int kRowTile = 4, kColumnTile = 6;
constexpr int sums_tile(int block, int vector) { return 2 * block + vector; }

// The `count` terms, fewer than kPairTerms, of a row that are left; the others of `to` are 0.
EFFKERNELS_INLINE void copy_rest(const BFloat16* from, int count, BFloat16* to) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask32>((uint32_t{1} << count) - 1u);
  _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(mask, from));
#else
  for (int i = 0; i < kPairTerms; ++i) to[i] = i < count ? from[i] : BFloat16{0};
#endif
}

}  // namespace

void PairProduct::configure(int count) {
  if (configured_ == count) return;
  configured_ = count;
  const int first = smaller(count, kTileRows), second = count - first;
  constexpr int kWidth = kLanes * static_cast<int>(sizeof(float));
  // Tiles without rows stay out of use. With one tile of rows, all sums have its rows.
  const int low = second == 0 ? first : second;
  tiles_.configure({{first, kWidth},
                    {first, kWidth},
                    {low, kWidth},
                    {low, kWidth},
                    {first, kTileBytes},
                    {second, second == 0 ? 0 : kTileBytes},
                    {kTilePairs, kWidth},
                    {kTilePairs, kWidth}});
}

// Multiplies kBlocks tiles of rows by kVectors tiles of weights.
template <int kBlocks, int kVectors>
void PairProduct::multiply_tiles(const PairRows& rows, const Pair* packed, int width, float* result,
                                 Ahead& ahead) {
  static_assert(kBlocks * kVectors <= 4);
  const int64_t bytes = rows.stride * static_cast<int64_t>(sizeof(BFloat16));
  const int64_t packed_bytes = width * static_cast<int64_t>(sizeof(Pair));
  unrolled<kBlocks>([&](auto b) { unrolled<kVectors>([&](auto v) { tiles_.zero<sums_tile(b, v)>(); }); });
  for (int k = 0; k < rows.k; k += kPairTerms, packed += int64_t{kTilePairs} * width) {
    const bool whole = k + kPairTerms <= rows.k;
    const BFloat16* x = whole ? rows.x + k : rest_;
    const int64_t stride = whole ? bytes : kTileBytes;
    unrolled<kBlocks>([&](auto b) {
      constexpr int kTile = kRowTile + b;
      tiles_.load<kTile>(x + b * kTileRows * stride / static_cast<int64_t>(sizeof(BFloat16)), stride);
    });
    constexpr int kLines = 4 * kBlocks * kVectors;
    const char* line = ahead.take(kLines, packed);
    for (int i = 0; i < kLines; ++i, line += Ahead::kLine) __builtin_prefetch(line, 0, 2);
    unrolled<kVectors>([&](auto v) {
      constexpr int kTile = kColumnTile + v % 2;
      tiles_.load<kTile>(packed + v * kLanes, packed_bytes);
      unrolled<kBlocks>([&](auto b) { tiles_.multiply_add<sums_tile(b, v), kRowTile + b, kTile>(); });
    });
  }
  const int64_t result_bytes = width * static_cast<int64_t>(sizeof(float));
  unrolled<kBlocks>([&](auto b) {
    unrolled<kVectors>([&](auto v) {
      tiles_.store<sums_tile(b, v)>(result + int64_t{b} * kTileRows * width + v * kLanes, result_bytes);
    });
  });
}

// Multiplies kBlocks tiles of rows by all weights of the chunk.
template <int kBlocks>
void PairProduct::multiply_block(const PairRows& rows, const Pair* packed, int width, float* result,
                                 Ahead& ahead) {
  constexpr int kAtOnce = 4 / kBlocks;
  for (int from = 0; from < width; from += kAtOnce * kLanes) {
    with_vectors(smaller(kAtOnce * kLanes, width - from), [&](auto vectors) {
      constexpr int kVectors = vectors < kAtOnce ? vectors : kAtOnce;
      multiply_tiles<kBlocks, kVectors>(rows, packed + from, width, result + from, ahead);
    });
  }
}

void PairProduct::multiply(const PairRows& rows, int count, const float* packed, int width, float* result,
                           Ahead& ahead) {
  const auto* pairs = reinterpret_cast<const Pair*>(packed);
  const int rest = rows.k % kPairTerms;
  PairRows some = rows;
  for (int first = 0; first < count; first += kRows) {
    const int now = smaller(kRows, count - first);
    some.x = rows.x + first * rows.stride;
    for (int i = 0; rest > 0 && i < now; ++i) {
      copy_rest(some.x + i * rows.stride + rows.k - rest, rest, rest_ + i * kPairTerms);
    }
    configure(now);
    float* to = result + static_cast<int64_t>(first) * width;
    if (now > kTileRows) {
      multiply_block<2>(some, pairs, width, to, ahead);
    } else {
      multiply_block<1>(some, pairs, width, to, ahead);
    }
  }
}

#elif defined(__AVX512BF16__)

namespace {

// Adds the products of the last terms of rows with an odd number of them: the first terms of the last pairs.
template <int kRows, int kVectors>
void add_last(const BFloat16* in, int64_t stride, const Pair* packed, float* to) {
  for (int v = 0; v < kVectors; ++v, packed += kLanes, to += kLanes) {
    const __m512i pairs = _mm512_loadu_si512(packed);
    const Vec weights{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
    for (int i = 0; i < kRows; ++i) {
      float* sums = to + i * kVectors * kLanes;
      store(sums, fma(broadcast(widen(in[i * stride])), weights, load(sums)));
    }
  }
}

template <int kRows, int kVectors>
void tile(const PairRows& rows, int first, const Pair* packed, float* result, Ahead& ahead) {
  constexpr int kWidth = kVectors * kLanes;
  const BFloat16* in = rows.x + first * rows.stride;
  Vec sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) sums[i][v] = broadcast(0.0f);
  }
  const char* line = ahead.take(rows.k / 2, packed);
  for (int k = 0; k + 2 <= rows.k; k += 2, in += 2, packed += kWidth, line += Ahead::kLine) {
    __builtin_prefetch(line, 0, 2);
    Vec weights[kVectors];
    for (int v = 0; v < kVectors; ++v) weights[v] = load(reinterpret_cast<const float*>(packed + v * kLanes));
    for (int i = 0; i < kRows; ++i) {
      float pair;
      std::memcpy(&pair, in + i * rows.stride, sizeof pair);
      const auto x = reinterpret_cast<__m512bh>(broadcast(pair).v);
      for (int v = 0; v < kVectors; ++v) {
        sums[i][v].v = _mm512_dpbf16_ps(sums[i][v].v, x, reinterpret_cast<__m512bh>(weights[v].v));
      }
    }
  }
  float* to = result + static_cast<int64_t>(first) * kWidth;
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) store(to + i * kWidth + v * kLanes, sums[i][v]);
  }
  if (rows.k % 2 != 0) add_last<kRows, kVectors>(in, rows.stride, packed, to);
}

}  // namespace

void PairProduct::multiply(const PairRows& rows, int count, const float* packed, int width, float* result,
                           Ahead& ahead) {
  with_vectors(width, [&](auto vectors) {
    constexpr int kVectors = vectors;
    split_rows<tile_rows(kVectors)>(0, count, [&](auto tile_rows, int first) {
      tile<tile_rows, kVectors>(rows, first, reinterpret_cast<const Pair*>(packed), result, ahead);
    });
  });
}

#else

// Never called: by_pairs() is false.
void PairProduct::multiply(const PairRows&, int, const float*, int, float*, Ahead&) {}

#endif

}  // namespace effkernels::cpu::EFFKERNELS_ISA
