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

// For results that are rounded to 16 bits.
#if defined(__AVX512F__)
// Within 2^-14 of the result, most of it from the estimate of the reciprocal: half a unit in the last place
// of float16 is 2^-12 to 2^-11, of bfloat16 2^-9 to 2^-8. Takes 0.57 of silu's time (Sapphire Rapids, which
// divides more slowly than it does all else in silu). e^-x is a power of two: the whole part of the exponent
// is added to that of a polynomial of the fraction, whose relative error is at most 2.6e-6. Beyond 2^128 it
// becomes infinity, so that a finite result becomes -0, as in PyTorch, and that for -inf NaN.
template <int kCount>
EFFKERNELS_INLINE void rounded_silu(Vec (&x)[kCount]) {
  Vec power[kCount], r[kCount], p[kCount];
  for (int i = 0; i < kCount; ++i) power[i] = x[i] * broadcast(-1.44269504f);
  for (int i = 0; i < kCount; ++i) r[i] = fraction(power[i]);
  for (int i = 0; i < kCount; ++i) p[i] = fma(r[i], broadcast(1.35341605e-2f), broadcast(5.20114749e-2f));
  for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(2.41442748e-1f));
  for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(6.93003836e-1f));
  for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(1.00000259f));
  for (int i = 0; i < kCount; ++i) p[i] = broadcast(1.0f) + scale_by_power(p[i], power[i]);
  for (int i = 0; i < kCount; ++i) x[i] = x[i] * rough_reciprocal(p[i]);
}
#else
template <int kCount>
EFFKERNELS_INLINE void rounded_silu(Vec (&x)[kCount]) {
  silu(x);
}
#endif

// `dtype`: to which results are rounded, at once or later.
template <int kCount>
EFFKERNELS_INLINE void activate(Activation activation, Dtype dtype, Vec (&x)[kCount]) {
  const Vec zero = broadcast(0.0f), six = broadcast(6.0f);
  switch (activation) {
    case Activation::kSilu:
      return dtype == Dtype::kFloat ? silu(x) : rounded_silu(x);
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
EFFKERNELS_INLINE void activate_all(Activation activation, Dtype dtype, int64_t count, float* y,
                                    const Next& next) {
  constexpr int kAtOnce = 4;
  int64_t i = 0;
  for (; i + kAtOnce * kLanes <= count; i += kAtOnce * kLanes) {
    Vec some[kAtOnce];
    for (int j = 0; j < kAtOnce; ++j) some[j] = next(i + j * kLanes);
    activate(activation, dtype, some);
    for (int j = 0; j < kAtOnce; ++j) store(y + i + j * kLanes, some[j]);
  }
  for (; i < count; i += kLanes) {
    Vec one[1] = {next(i)};
    activate(activation, dtype, one);
    store(y + i, one[0]);
  }
}

// y = activation(x) for `count` floats, a multiple of kLanes.
inline void activate(Activation activation, Dtype dtype, const float* x, int64_t count, float* y) {
  if (activation == Activation::kIdentity && x == y) return;
  activate_all(activation, dtype, count, y, [x](int64_t i) { return load(x + i); });
}

// y = activation(scale * sums + shift) for `rows` rows of `width` floats, a multiple of kLanes.
inline void activate_scaled(Activation activation, Dtype dtype, const float* sums, int64_t rows, int width,
                            const float* scale, const float* shift, float* y) {
  int channel = 0;
  activate_all(activation, dtype, rows * width, y, [&](int64_t i) {
    const Vec x = fma(load(sums + i), load(scale + channel), load(shift + channel));
    channel = channel + kLanes == width ? 0 : channel + kLanes;
    return x;
  });
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
