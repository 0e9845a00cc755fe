#pragma once

// The types that the arguments of all kernels consist of, on the CPU and on GPUs: plain sizes and pointers.
// Feature maps are dense NHWC. The bindings have checked everything, and own all memory.

#include <cstdint>

// Inline functions here are compiled for several instruction sets, so they must be inlined everywhere: the
// linker would keep only one copy of a function that is not.
#define EFFKERNELS_INLINE inline __attribute__((always_inline))

namespace effkernels {

// The element types of activations and weights. Arithmetic is float everywhere.
struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

enum class Dtype : uint8_t { kFloat, kBFloat16, kHalf };

EFFKERNELS_INLINE constexpr int size_of(Dtype dtype) { return dtype == Dtype::kFloat ? 4 : 2; }

enum class Activation : uint8_t { kIdentity, kSilu, kRelu, kRelu6, kHardswish };

// A dense vector or matrix of parameters; null if there is none.
struct Parameters {
  const void* data;
  Dtype dtype;
};

// What follows a convolution: a bias, then BatchNorm with the module's own values. No BatchNorm if `mean` is
// null.
struct Norm {
  Parameters bias, gamma, beta, mean, variance;
  float eps;
};

struct Shape {
  int64_t images;
  int height, width, channels;

  EFFKERNELS_INLINE int64_t pixels() const { return static_cast<int64_t>(height) * width; }
};

// The window of a convolution. `top` and `left` are padding; the padding below and to the right follows
// from the size of the output.
struct Window {
  int kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w;
};

// Convolutions with more kernel rows than this are not supported.
constexpr int kMaxKernelRows = 64;

}  // namespace effkernels
