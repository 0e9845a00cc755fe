#pragma once

// What the arguments of all kernels are made of, on the CPU and on GPUs: plain sizes and pointers. Feature
// maps are NHWC without gaps. The bindings have checked everything, and own all memory.

#include <cstdint>

// Inline functions here are compiled for several instruction sets: none may be left outside of its caller,
// where the linker would take one of them for all.
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

// A vector or a matrix of parameters without gaps; null where there is none.
struct Parameters {
  const void* data;
  Dtype dtype;
};

// What follows a convolution: a bias, then BatchNorm as it stands in a module. Without `mean`, no BatchNorm.
struct Norm {
  Parameters bias, gamma, beta, mean, variance;
  float eps;
};

struct Shape {
  int64_t images;
  int height, width, channels;

  EFFKERNELS_INLINE int64_t pixels() const { return static_cast<int64_t>(height) * width; }
};

// The window of a convolution. `top` and `left` are padding; how much lies below and to the right follows
// from the size of the output.
struct Window {
  int kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w;
};

// Convolutions with more kernel rows than this are not supported.
constexpr int kMaxKernelRows = 64;

}  // namespace effkernels
