#pragma once

// Activations, with the same results as PyTorch for infinities and NaN. They take several vectors at once and
// do each step for all of them: the steps of one vector wait for each other, those of others fill the
// pipeline (measured on Zen 5, AVX-512: 2.4 ns a vector one by one, 2.0 ns in fours).

#include "args/common.h"
#include "cpu/isa/vec.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

// `added` + e^-x for x in [-88, 87], with e^-x within 2 units in the last place of the exact value (at most
// 1.95 over all floats). NaN stays NaN; other values outside of the range are not allowed. With -x = n ln 2 /
// kPowers - r and |r| <= ln 2 / 2 / kPowers, e^-x is 2^(n / kPowers), partly from a table, times 1 - r + r^2
// p(r), where p is the linear polynomial with the smallest relative error of the result: 0.43 * 2^-24 before
// rounding, for kPowers = 8.
template <int kCount>
EFFKERNELS_INLINE void exponential_of_minus(Vec (&x)[kCount], float added) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Vec shift = broadcast(12582912.0f);
  Vec shifted[kCount], r[kCount], p[kCount];
  for (int i = 0; i < kCount; ++i) shifted[i] = fma(x[i], broadcast(-1.44269504f * kPowers), shift);
  for (int i = 0; i < kCount; ++i) p[i] = shifted[i] - shift;
  // ln 2 is split in two: the product of n with the first part is exact.
  for (int i = 0; i < kCount; ++i) r[i] = fma(p[i], broadcast(0.693359375f / kPowers), x[i]);
  for (int i = 0; i < kCount; ++i) r[i] = fma(p[i], broadcast(-2.12194440e-4f / kPowers), r[i]);
  for (int i = 0; i < kCount; ++i) p[i] = fma(r[i], broadcast(-1.66668603e-1f), broadcast(5.00064491e-1f));
  for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(-1.0f));
  for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(1.0f));
  for (int i = 0; i < kCount; ++i) x[i] = fma(p[i], power_of_two(shifted[i]), broadcast(added));
}

EFFKERNELS_INLINE Vec bounded_exponent(Vec x) { return min(broadcast(87.0f), max(broadcast(-88.0f), x)); }

template <int kCount>
EFFKERNELS_INLINE void sigmoid(Vec (&x)[kCount]) {
  const Vec zero = broadcast(0.0f);
  Vec beyond[kCount];
  // Below -88.72 PyTorch's sigmoid is 0, which makes NaN of minus infinity.
  for (int i = 0; i < kCount; ++i) beyond[i] = min(zero, x[i] + broadcast(88.72f));
  for (int i = 0; i < kCount; ++i) x[i] = bounded_exponent(x[i]);
  exponential_of_minus(x, 1.0f);
  for (int i = 0; i < kCount; ++i) x[i] = broadcast(1.0f) / x[i];
  for (int i = 0; i < kCount; ++i) x[i] = max(zero, x[i] + beyond[i]);
}

template <int kCount>
EFFKERNELS_INLINE void silu(Vec (&x)[kCount]) {
  const Vec zero = broadcast(0.0f);
  Vec numerator[kCount], denominator[kCount];
  // Below -88 PyTorch's result is -0; this one is between -1e-36 and 0.
  for (int i = 0; i < kCount; ++i) numerator[i] = max(broadcast(-88.0f), x[i]);
  for (int i = 0; i < kCount; ++i) denominator[i] = min(broadcast(87.0f), numerator[i]);
  exponential_of_minus(denominator, 1.0f);
  for (int i = 0; i < kCount; ++i) numerator[i] = numerator[i] / denominator[i];
  for (int i = 0; i < kCount; ++i) x[i] = fma(min(zero, x[i]), zero, numerator[i]);  // -inf gives NaN
}

template <int kCount>
EFFKERNELS_INLINE void activate(Activation activation, Vec (&x)[kCount]) {
  const Vec zero = broadcast(0.0f), six = broadcast(6.0f);
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kRelu:
      for (int i = 0; i < kCount; ++i) x[i] = max(zero, x[i]);
      return;
    case Activation::kRelu6:
      for (int i = 0; i < kCount; ++i) x[i] = min(six, max(zero, x[i]));
      return;
    case Activation::kHardswish:
      for (int i = 0; i < kCount; ++i) {
        x[i] = x[i] * min(six, max(zero, x[i] + broadcast(3.0f))) * broadcast(1.0f / 6.0f);
      }
      return;
    case Activation::kIdentity:
      return;
  }
}

// Writes the activations of `count` floats, a multiple of kLanes, to y. `next` gives a vector of them for
// each place, in order.
template <class Next>
EFFKERNELS_INLINE void activate_all(Activation activation, int64_t count, float* y, const Next& next) {
  constexpr int kAtOnce = 4;
  int64_t i = 0;
  for (; i + kAtOnce * kLanes <= count; i += kAtOnce * kLanes) {
    Vec some[kAtOnce];
    for (int j = 0; j < kAtOnce; ++j) some[j] = next(i + j * kLanes);
    activate(activation, some);
    for (int j = 0; j < kAtOnce; ++j) store(y + i + j * kLanes, some[j]);
  }
  for (; i < count; i += kLanes) {
    Vec one[1] = {next(i)};
    activate(activation, one);
    store(y + i, one[0]);
  }
}

// y = activation(x) for `count` floats, a multiple of kLanes.
inline void activate(Activation activation, const float* x, int64_t count, float* y) {
  if (activation == Activation::kIdentity && x == y) return;
  activate_all(activation, count, y, [x](int64_t i) { return load(x + i); });
}

// y = activation(scale * sums + shift) for `rows` rows of `width` floats, a multiple of kLanes.
inline void activate_scaled(Activation activation, const float* sums, int64_t rows, int width,
                            const float* scale, const float* shift, float* y) {
  int channel = 0;
  activate_all(activation, rows * width, y, [&](int64_t i) {
    const Vec x = fma(load(sums + i), load(scale + channel), load(shift + channel));
    channel = channel + kLanes == width ? 0 : channel + kLanes;
    return x;
  });
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
