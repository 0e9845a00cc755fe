#pragma once

// BatchNorm folded per channel, and activations, as PyTorch computes them: NaN stays NaN.

#include "args/common.h"
#include "cuda/common/device.cuh"

namespace effkernels::cuda {

// The bits of a parameter, as they are in memory. They are widened later, so that several may be on their way
// at once.
EFFKERNELS_DEVICE uint32_t parameter_bits(const Parameters& p, int64_t i) {
  return p.dtype == Dtype::kFloat ? static_cast<const uint32_t*>(p.data)[i]
                                  : static_cast<const uint16_t*>(p.data)[i];
}

EFFKERNELS_DEVICE float parameter_of(uint32_t bits, Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat:
      return float_of_bits(bits);
    case Dtype::kBFloat16:
      return widen(BFloat16{static_cast<uint16_t>(bits)});
    case Dtype::kHalf:
      break;
  }
  return widen(Half{static_cast<uint16_t>(bits)});
}

EFFKERNELS_DEVICE float parameter(const Parameters& p, int64_t i) {
  return parameter_of(parameter_bits(p, i), p.dtype);
}

EFFKERNELS_DEVICE float parameter_or(const Parameters& p, int64_t i, float otherwise) {
  return p.data == nullptr ? otherwise : parameter(p, i);
}

// norm(convolution) = scale * convolution + shift
struct Folded {
  float scale, shift;
};

// What a channel's norm is made of, as it is in memory.
struct NormBits {
  uint32_t bias, gamma, beta, mean, variance;
};

EFFKERNELS_DEVICE NormBits norm_bits(const Norm& norm, int channel) {
  const auto bits = [&](const Parameters& p) { return p.data == nullptr ? 0 : parameter_bits(p, channel); };
  return {bits(norm.bias), bits(norm.gamma), bits(norm.beta), bits(norm.mean), bits(norm.variance)};
}

EFFKERNELS_DEVICE Folded fold(const Norm& norm, const NormBits& bits) {
  const auto value = [](const Parameters& p, uint32_t found, float otherwise) {
    return p.data == nullptr ? otherwise : parameter_of(found, p.dtype);
  };
  Folded folded{1.0f, value(norm.bias, bits.bias, 0.0f)};
  if (norm.mean.data != nullptr) {
    folded.scale =
        value(norm.gamma, bits.gamma, 1.0f) / sqrtf(value(norm.variance, bits.variance, 1.0f) + norm.eps);
    folded.shift =
        (folded.shift - value(norm.mean, bits.mean, 0.0f)) * folded.scale + value(norm.beta, bits.beta, 0.0f);
  }
  return folded;
}

EFFKERNELS_DEVICE Folded fold(const Norm& norm, int channel) { return fold(norm, norm_bits(norm, channel)); }

// Folds `there` channels from `first`, once for the whole block. Entries beyond them, up to `count`, are 0.
EFFKERNELS_DEVICE void fold_channels(const Norm& norm, int first, int there, int count, Folded* folded) {
  for (int c = thread_index(); c < count; c += block_threads()) {
    folded[c] = c < there ? fold(norm, first + c) : Folded{};
  }
}

EFFKERNELS_DEVICE float between(float low, float x, float high) {
  return x < low ? low : x > high ? high : x;
}

// One element: two special-function operations and three others. e^-x is infinite below -88, and its
// reciprocal 0: as PyTorch's, -0 there and NaN at minus infinity. With one such operation there is x/2 + x/2
// * tanh(x/2), but the tanh of GPUs may err by 2^-11: 10 % of the result at -6, more than the tolerance
// allows.
EFFKERNELS_DEVICE float silu(float x) {
  return x * fast_reciprocal(1.0f + fast_power_of_2(x * -1.44269504f));
}

// Where the exponent of two elements ends, in powers of two: so the product of their two denominators and its
// reciprocal are normal numbers. e^-x is 2^62 at x = -43.
constexpr float kMostPower = 62.0f;
// A little more than the sigmoid there, by more than its error.
constexpr float kLeastSigmoid = 0x1.001p-62f;

// Two elements at once, with one reciprocal for both: 1 / a = b / (a b). Special functions bind on a GPU: an
// H100 computes 11.7 elements a clock on a multiprocessor so, 8.9 with a reciprocal each; with one for
// four 12.9, but those would have to end at -20.
//
// What is taken off each sigmoid makes it exactly 0 from -43 down, for no further operation: x times it is
// -0, and NaN at minus infinity, as PyTorch's. No result errs by more than 1e-17 by that, those above -20 by
// less than 1e-9 of their size. The smaller of NaN and a number is the number, so NaN does not reach the
// other element through the reciprocal. Nothing overflows: a sigmoid is at most 1.
EFFKERNELS_DEVICE void silu(float& x, float& y) {
  const float of_x = 1.0f + fast_power_of_2(fminf(x * -1.44269504f, kMostPower));
  const float of_y = 1.0f + fast_power_of_2(fminf(y * -1.44269504f, kMostPower));
  const float both = fast_reciprocal(of_x * of_y);
  x *= multiply_add_within_1(of_y, both, -kLeastSigmoid);
  y *= multiply_add_within_1(of_x, both, -kLeastSigmoid);
}

template <int kCount>
EFFKERNELS_DEVICE void silu(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i + 1 < kCount; i += 2) silu(x[i], x[i + 1]);
  if constexpr (kCount % 2 == 1) x[kCount - 1] = silu(x[kCount - 1]);
}

// The clamped factor is divided by 6 first: x * 6 may overflow.
EFFKERNELS_DEVICE float hardswish(float x) { return x * (between(0.0f, x + 3.0f, 6.0f) * (1.0f / 6.0f)); }

template <int kCount, class F>
EFFKERNELS_DEVICE void for_each(float (&x)[kCount], const F& f) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = f(x[i]);
}

// Several elements at a time: a branch for each would cost as much as SiLU itself, and make each wait for the
// one before.
template <int kCount>
EFFKERNELS_DEVICE void activate(Activation activation, float (&x)[kCount]) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kRelu:
      return for_each(x, [](float v) { return v < 0.0f ? 0.0f : v; });
    case Activation::kRelu6:
      return for_each(x, [](float v) { return between(0.0f, v, 6.0f); });
    case Activation::kHardswish:
      return for_each(x, hardswish);
    case Activation::kIdentity:
      break;
  }
}

// Gates are few, so this one is accurate: within two units in the last place, and 0 only where PyTorch's is.
EFFKERNELS_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Calls f with a null pointer of the element type, on the host.
template <class F>
const char* with_dtype(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::kFloat:
      return f(static_cast<float*>(nullptr));
    case Dtype::kBFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case Dtype::kHalf:
      break;
  }
  return f(static_cast<Half*>(nullptr));
}

}  // namespace effkernels::cuda
