#pragma once

// The launchers: what they take is what the CPU kernels take (feature maps are NHWC without gaps), all
// pointers in the memory of the current device. Each returns nullptr, or words for what went wrong.
// `..._workspace` says how many floats of workspace a call wants.

#include "cpu/kernels.h"

namespace effkernels::cuda {

using Activation;
using ConvBnActArgs;
using DepthwiseConvBnActArgs;
using Dtype;
using SqueezeExciteGateArgs;
using Norm;
using Parameters;
using Shape;
using SqueezeExciteArgs;
using Window;

int64_t depthwise_workspace(const DepthwiseConvBnActArgs& args);
const char* depthwise(const DepthwiseConvBnActArgs& args, float* workspace, void* stream);

// A 1x1 convolution and the depthwise one behind it, each with BatchNorm and the same activation.
struct ExpandDepthwiseConvBnActArgs {
  DepthwiseConvBnActArgs depthwise;    // `in` is the expanded map, which is never in memory; x is the narrow one
  int in_channels;            // of x
  const void* expand_weight;  // (expanded channels, in channels)
  Norm expand_norm;
};

int64_t expand_depthwise_workspace(const ExpandDepthwiseConvBnActArgs& args);
const char* expand_depthwise(const ExpandDepthwiseConvBnActArgs& args, float* workspace, void* stream);

// Means over `pixels` from partial sums [images][parts][channels], added in their order.
const char* mean_of_parts(const float* sums, int64_t images, int parts, int channels, int64_t pixels,
                          float* mean, void* stream);

const char* gate(const SqueezeExciteGateArgs& args, void* stream);

int64_t squeeze_excite_workspace(const SqueezeExciteArgs& args);
const char* squeeze_excite(const SqueezeExciteArgs& args, float* workspace, void* stream);

const char* conv(const ConvBnActArgs& args, void* stream);

// `gate` takes at most so many hidden channels, `conv` sums with at most so many terms, `expand_depthwise`
// with at most so many input channels.
constexpr int kMostHidden = 12288;
constexpr int kMostTerms = 256;
constexpr int kMostExpanding = 128;

}  // namespace effkernels::cuda
