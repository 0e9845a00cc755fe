#pragma once

// What the kernels take: plain sizes and pointers. Feature maps are NHWC without gaps; `Dtype` is that of all
// feature maps and convolution weights of a call. The binding has checked everything, and owns all memory.

#include <cstdint>

#include "args/dtype.h"
#include "cpu/runtime/threads.h"

namespace effkernels::cpu {

enum class Activation : uint8_t { kIdentity, kSilu, kRelu, kRelu6, kHardswish };

// A vector or a matrix of parameters without gaps; null where there is none.
struct Parameters {
  const void* data;
  Dtype dtype;
};

// What follows a convolution: a bias, then BatchNorm as it stands in a module. Without `mean`, no BatchNorm.
struct Norm {
  Parameters bias, weight, shift, mean, variance;
  float eps;
};

struct Shape {
  int64_t images;
  int height, width, channels;

  int64_t pixels() const { return static_cast<int64_t>(height) * width; }
};

// How a kernel moves over its input. Padding above and left; what lies below and right follows from the
// output's size.
struct Window {
  int kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w;
};

struct DepthwiseConvBnActArgs {
  Shape in, out;
  Dtype dtype;
  Window window;
  const void* x;
  const void* weight;  // (channels, kernel_h, kernel_w)
  Norm norm;
  Activation activation;
  void* y;
  float* mean;  // (images, channels), or null
};

struct ConvBnActArgs {
  Shape in, out;
  Dtype dtype;  // of weight and y; of x too unless it is `bytes`
  Window window;
  const void* x;
  bool planar;                       // x is NCHW, as images come, without gaps
  bool bytes;                        // x is uint8
  Parameters image_mean, image_std;  // (in channels), of x: it is normalised first, padding not; or null
  const void* weight;  // (out channels, in channels, kernel_h, kernel_w) with these strides, in elements
  int64_t weight_strides[4];
  Norm norm;
  Activation activation;
  void* y;
};

struct PointwiseConvBnActArgs {
  Shape in;
  int out_channels;
  Dtype dtype;
  const void* x;
  const void* weight;  // (out channels, in channels)
  Norm norm;
  const float* gate;     // (images, in channels), or null
  const void* residual;  // as y, or null
  Activation activation;
  void* y;      // null where only the mean is wanted
  float* mean;  // (images, out channels): of y over height and width, or null
};

struct SqueezeExciteGateArgs {
  int64_t images;
  int channels, squeezed;
  Parameters reduce_weight, reduce_bias;  // (squeezed, channels), (squeezed)
  Parameters expand_weight, expand_bias;  // (channels, squeezed), (channels)
  Activation activation;
  const float* pooled;  // (images, channels)
  float* gate;          // (images, channels)
};

struct SqueezeExciteArgs {
  Shape in;
  Dtype dtype;
  const void* x;
  SqueezeExciteGateArgs gate;  // without pooled and gate
  void* y;
};

struct MbconvArgs {
  Shape in, out;
  int expanded;  // channels inside
  Dtype dtype;
  Window window;
  const void* x;
  const void* expand_weight;  // (expanded, in channels), or null where nothing expands
  Norm expand_norm;
  const void* depthwise_weight;  // (expanded, kernel_h, kernel_w)
  Norm depthwise_norm;
  SqueezeExciteGateArgs gate;               // without pooled and gate; squeezed is 0 where there is none
  const void* project_weight;  // (out channels, expanded)
  Norm project_norm;
  bool residual;
  Activation activation;
  void* y;
};

struct LinearArgs {
  int64_t images;
  int in_features, out_features;
  Dtype dtype;         // of weight and y
  const float* x;      // (images, in features)
  const void* weight;  // (out features, in features)
  Parameters bias;
  void* y;  // (images, out features)
};

// One op of one instruction set. `scratch_floats` says how much workspace `run` wants beside its result.
template <class Args>
struct Op {
  int64_t (*scratch_floats)(const Args& args, int threads);
  void (*run)(const Args& args, float* scratch, const Threads& threads);
};

struct Kernels {
  const char* name;
  const Op<DepthwiseConvBnActArgs>* depthwise;
  const Op<ConvBnActArgs>* conv;
  const Op<PointwiseConvBnActArgs>* pointwise;
  const Op<SqueezeExciteGateArgs>* gate;
  const Op<SqueezeExciteArgs>* squeeze_excite;
  const Op<MbconvArgs>* mbconv;
  const Op<LinearArgs>* linear;
  void (*exponential)(const float* x, float* y, int64_t count);  // for tests
};

// Kernels with more rows than this are not supported.
constexpr int kMaxKernelRows = 64;

}  // namespace effkernels::cpu
