#pragma once

#include "args/depthwise_conv_bn_act.h"
#include "args/pointwise_conv_bn_act.h"

namespace effkernels {

// A 1x1 convolution and the depthwise one behind it, each with BatchNorm and the same activation.
struct ExpandDepthwiseConvBnActArgs {
  DepthwiseConvBnActArgs depthwise;  // `in` is the expanded map, which is never in memory
  int in_channels;
  const void* x;              // (images, in.height, in.width, in_channels); `depthwise.x` is not read
  const void* expand_weight;  // (expanded channels, in channels)
  Norm expand_norm;

  // The first convolution alone, which writes the expanded map there.
  PointwiseConvBnActArgs expand(void* y) const {
    PointwiseConvBnActArgs a{};
    a.in = depthwise.in;
    a.in.channels = in_channels;
    a.out_channels = depthwise.in.channels;
    a.dtype = depthwise.dtype;
    a.x = x;
    a.weight = expand_weight;
    a.norm = expand_norm;
    a.activation = depthwise.activation;
    a.y = y;
    return a;
  }
  // The second one alone, which reads it there.
  DepthwiseConvBnActArgs after(const void* expanded) const {
    DepthwiseConvBnActArgs a = depthwise;
    a.x = expanded;
    return a;
  }
};

}  // namespace effkernels
