#pragma once

// BatchNorm folded per channel, and activations, as PyTorch computes them: NaN stays NaN.

#include "cuda/device.cuh"
#include "cuda/kernels.h"

namespace effkernels::cuda {

EFFKERNELS_DEVICE float parameter(const Parameters& p, int64_t i) {
  switch (p.dtype) {
    case Dtype::kFloat:
      return static_cast<const float*>(p.data)[i];
    case Dtype::kBFloat16:
      return widen(static_cast<const BFloat16*>(p.data)[i]);
    case Dtype::kHalf:
      break;
  }
  return widen(static_cast<const Half*>(p.data)[i]);
}

EFFKERNELS_DEVICE float parameter_or(const Parameters& p, int64_t i, float otherwise) {
  return p.data == nullptr ? otherwise : parameter(p, i);
}

// norm(convolution) = scale * convolution + shift
struct Folded {
  float scale, shift;
};

EFFKERNELS_DEVICE Folded fold(const Norm& norm, int channel) {
  Folded folded{1.0f, parameter_or(norm.bias, channel, 0.0f)};
  if (norm.mean.data != nullptr) {
    folded.scale =
        parameter_or(norm.weight, channel, 1.0f) / sqrtf(parameter(norm.variance, channel) + norm.eps);
    folded.shift = (folded.shift - parameter(norm.mean, channel)) * folded.scale +
                   parameter_or(norm.shift, channel, 0.0f);
  }
  return folded;
}

// Those of `there` channels from `first`, once for all of the block, and of none up to `count`.
EFFKERNELS_DEVICE void fold_channels(const Norm& norm, int first, int there, int count, Folded* folded) {
  for (int c = thread_index(); c < count; c += block_threads()) {
    folded[c] = c < there ? fold(norm, first + c) : Folded{};
  }
}

EFFKERNELS_DEVICE float between(float low, float x, float high) {
  return x < low ? low : x > high ? high : x;
}

// SiLU takes two special-function operations. The form with one (tanh) errs by 10 % of the result at -6,
// more than the tolerance of 16-bit results allows.
template <Activation kActivation>
EFFKERNELS_DEVICE float activate(float x) {
  switch (kActivation) {
    case Activation::kSilu:
      return fast_quotient(x, 1.0f + fast_exponential(-x));
    case Activation::kRelu:
      return x < 0.0f ? 0.0f : x;
    case Activation::kRelu6:
      return between(0.0f, x, 6.0f);
    case Activation::kHardswish:
      // The factor first: x * 6 may be too large for float.
      return x * (between(0.0f, x + 3.0f, 6.0f) * (1.0f / 6.0f));
    case Activation::kIdentity:
      break;
  }
  return x;
}

template <Activation kActivation, int kCount>
EFFKERNELS_DEVICE void activate_each(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = activate<kActivation>(x[i]);
}

// Several at a time: which activation it is is asked once, and none waits for the special functions of
// another.
template <int kCount>
EFFKERNELS_DEVICE void activate(Activation activation, float (&x)[kCount]) {
  switch (activation) {
    case Activation::kSilu:
      return activate_each<Activation::kSilu>(x);
    case Activation::kRelu:
      return activate_each<Activation::kRelu>(x);
    case Activation::kRelu6:
      return activate_each<Activation::kRelu6>(x);
    case Activation::kHardswish:
      return activate_each<Activation::kHardswish>(x);
    case Activation::kIdentity:
      break;
  }
}

EFFKERNELS_DEVICE float activate(Activation activation, float x) {
  float one[1] = {x};
  activate(activation, one);
  return one[0];
}

// Not on every element of a map, so exact to the last place or two, and 0 only where PyTorch's is.
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
