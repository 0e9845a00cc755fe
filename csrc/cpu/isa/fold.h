#pragma once

// Prepares parameters for the kernels: folds BatchNorm into scale and shift, scales weights, and packs them
// in chunks of output channels. Every call does this again for each chunk, so no cache can become stale.

#include <type_traits>

#include "args/common.h"
#include "cpu/isa/vec.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

// `count` parameters from index `first`; lanes beyond them are 0.
EFFKERNELS_INLINE Vec load_parameters(const Parameters& p, int64_t first, int count) {
  switch (p.dtype) {
    case Dtype::kFloat:
      return load_up_to(static_cast<const float*>(p.data) + first, count);
    case Dtype::kBFloat16:
      return load_up_to(static_cast<const BFloat16*>(p.data) + first, count);
    case Dtype::kHalf:
      break;
  }
  return load_up_to(static_cast<const Half*>(p.data) + first, count);
}

// The scale and shift of `channels` channels from `first`, padded with zeros to whole vectors:
// norm(convolution) = scale * convolution + shift.
inline void fold_norm(const Norm& norm, int64_t first, int channels, float* scale, float* shift) {
  for (int c = 0; c < channels; c += kLanes) {
    const int count = channels - c;
    Vec factor = broadcast(1.0f), shifts = broadcast(0.0f);
    if (norm.bias.data != nullptr) shifts = load_parameters(norm.bias, first + c, count);
    if (norm.mean.data != nullptr) {
      const Vec variance = load_parameters(norm.variance, first + c, count);
      factor = factor / square_root(variance + broadcast(norm.eps));
      if (norm.gamma.data != nullptr) factor = factor * load_parameters(norm.gamma, first + c, count);
      shifts = (shifts - load_parameters(norm.mean, first + c, count)) * factor;
      if (norm.beta.data != nullptr) shifts = shifts + load_parameters(norm.beta, first + c, count);
    }
    store(scale + c, factor);
    store(shift + c, shifts);
  }
}

// Calls f with a null pointer to the element type.
template <class F>
EFFKERNELS_INLINE void with_dtype(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::kFloat:
      return f(static_cast<const float*>(nullptr));
    case Dtype::kBFloat16:
      return f(static_cast<const BFloat16*>(nullptr));
    case Dtype::kHalf:
      return f(static_cast<const Half*>(nullptr));
  }
}

// load_columns for any element type and for incomplete blocks: `rows` of the kLanes rows and `count` of the
// four columns exist, the rest is 0.
template <class T>
EFFKERNELS_INLINE void load_columns_up_to(const T* p, int64_t stride, int rows, int count,
                                          Vec (&columns)[4]) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (rows >= kLanes && count >= 4) return load_columns(p, stride, columns);
  }
  float block[kLanes * 4] = {};
  for (int i = 0; i < smaller(kLanes, rows); ++i) {
    for (int j = 0; j < smaller(4, count); ++j) block[i * 4 + j] = widen(p[i * stride + j]);
  }
  load_columns(block, 4, columns);
}

// Eight columns like load_columns_up_to's four. Whole blocks of bfloat16 are loaded as four columns of pairs:
// element by element, packing took twice as long as that of floats.
template <class T>
EFFKERNELS_INLINE void load_8_columns_up_to(const T* p, int64_t stride, int rows, int count,
                                            Vec (&columns)[8]) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (rows >= kLanes && count >= 8 && stride % 2 == 0) {
      Vec pairs[4];
      load_columns(reinterpret_cast<const float*>(p), stride / 2, pairs);
      for (int j = 0; j < 4; ++j) {
        columns[2 * j] = lower_half(pairs[j]);
        columns[2 * j + 1] = upper_half(pairs[j]);
      }
      return;
    }
  }
#endif
  Vec half[4];
  load_columns_up_to(p, stride, rows, count, half);
  for (int j = 0; j < 4; ++j) columns[j] = half[j];
  if (count <= 4) return;
  load_columns_up_to(p + 4, stride, rows, count - 4, half);
  for (int j = 0; j < 4; ++j) columns[4 + j] = half[j];
}

template <class T>
EFFKERNELS_INLINE void prefetch(const T* p, int64_t count) {
  constexpr int kCacheLine = 64;
  for (int64_t i = 0; i < count; i += kCacheLine / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(p + i);
}

// Prefetches the parameters of `channels` channels from `first`: a few cache lines of each array, too few for
// the processor's own prefetcher.
inline void prefetch_norm(const Norm& norm, int64_t first, int channels) {
  const Parameters* const all[] = {&norm.bias, &norm.gamma, &norm.beta, &norm.mean, &norm.variance};
  for (const Parameters* p : all) {
    if (p->data == nullptr) continue;
    const int size = size_of(p->dtype);
    prefetch(static_cast<const char*>(p->data) + first * size, static_cast<int64_t>(channels) * size);
  }
}

// Packs kLanes rows of weights, of which `rows` exist, as the `k` vectors from `packed` on, `width` floats
// apart, while `next` is prefetched.
template <bool kGated, class T>
void pack_rows(const T* weight, int rows, int k, const T* next, Vec scale, const float* gate, int width,
               float* packed) {
  constexpr int kColumns = 8;
  const auto pack = [&](int c, auto there, auto count) {
    prefetch(next + c * kLanes, kColumns * kLanes);
    Vec columns[kColumns];
    load_8_columns_up_to(weight + c, k, there, count, columns);
    float* out = packed + static_cast<int64_t>(c) * width;
    for (int j = 0; j < count; ++j, out += width) {
      if (j == kColumns / 2) forget(out);
      const Vec scaled = columns[j] * scale;
      store(out, kGated ? scaled * broadcast(gate[c + j]) : scaled);
    }
  };
  int c = 0;
  if (rows >= kLanes) {
    for (; c + kColumns <= k; c += kColumns) {
      pack(c, std::integral_constant<int, kLanes>(), std::integral_constant<int, kColumns>());
    }
  }
  for (; c < k; c += kColumns) pack(c, rows, smaller(kColumns, k - c));
}

// Packs weights (`rows` dense rows of `k` elements) as [k][width], each row multiplied by its scale and each
// column by its gate, if any. Columns of `packed` beyond `rows` are 0.
template <class T>
void pack_chunk(const T* weight, int rows, int k, const float* scale, const float* gate, int width,
                float* packed) {
  // Weights come from distant memory: kLanes rows at a time, while the next ones are prefetched in memory
  // order. During the last rows `next` is these rows themselves, which are near: that costs nothing.
  prefetch(weight, smaller(kLanes, rows) * static_cast<int64_t>(k));
  for (int r = 0; r < width; r += kLanes) {
    const T* first = weight + static_cast<int64_t>(r) * k;
    const T* next = r + kLanes < rows ? first + static_cast<int64_t>(kLanes) * k : first;
    const auto pack = gate == nullptr ? pack_rows<false, T> : pack_rows<true, T>;
    pack(first, rows - r, k, next, load(scale + r), gate, width, packed + r);
  }
}

// Packs the weights of `channels` output channels from `first`, multiplied by BatchNorm's scale, and computes
// their shift. `width` is `channels` rounded up to whole vectors.
inline void pack_folded(const void* weight, Dtype dtype, int64_t first, int channels, int k, const Norm& norm,
                        const float* gate, int width, float* packed, float* scale, float* shift) {
  fold_norm(norm, first, channels, scale, shift);
  with_dtype(dtype, [&](const auto* type) {
    pack_chunk(static_cast<decltype(type)>(weight) + first * k, channels, k, scale, gate, width, packed);
  });
}

// Loads `count` elements as floats, multiplied by the gate, if any.
inline void widen_row(const void* from, Dtype dtype, int64_t first, int count, const float* gate, float* to) {
  with_dtype(dtype, [&](const auto* type) {
    const auto* in = static_cast<decltype(type)>(from) + first;
    for (int i = 0; i < count; i += kLanes) {
      Vec x = load_up_to(in + i, count - i);
      if (gate != nullptr) x = x * load_up_to(gate + i, count - i);
      store_up_to(to + i, x, count - i);
    }
  });
}

// Stores rows of results, `width` floats each, into a feature map: `channels` of each row, from element `at`
// of `y`, with rows `row_stride` elements apart; adds the same elements of the residual, if any.
inline void store_rows(Dtype dtype, const float* results, int count, int width, int channels,
                       const void* residual, void* y, int64_t at, int64_t row_stride) {
  with_dtype(dtype, [&](const auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    for (int i = 0; i < count; ++i, results += width, at += row_stride) {
      for (int c = 0; c < channels; c += kLanes) {
        Vec x = load(results + c);
        if (residual != nullptr) x = x + load_up_to(static_cast<const T*>(residual) + at + c, channels - c);
        store_up_to(static_cast<T*>(y) + at + c, x, channels - c);
      }
    }
  });
}

// Turns sums over bands of rows, [images][bands][stride], into means over the map. They are added in order,
// so that the result does not depend on which thread finished first.
inline void mean_of_bands(const float* sums, int64_t images, int bands, int64_t stride, const Shape& map,
                          float* mean) {
  const Vec pixels = broadcast(static_cast<float>(map.pixels()));
  for (int64_t image = 0; image < images; ++image, sums += bands * stride, mean += map.channels) {
    for (int c = 0; c < map.channels; c += kLanes) {
      Vec total = load(sums + c);
      for (int band = 1; band < bands; ++band) total = total + load(sums + band * stride + c);
      store_up_to(mean + c, total / pixels, map.channels - c);
    }
  }
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
