#pragma once

#include "args/common.h"
#include "args/depthwise_conv_bn_act.h"

namespace effkernels {

// A 1x1 convolution and the depthwise convolution after it, each with BatchNorm and the same
// activation.
struct ExpandDepthwiseConvBnActArgs {
  DepthwiseConvBnActArgs
      depthwise;    // `in` is the shape of the expanded map, which is never in memory; x is the block's input
  int in_channels;  // of x
  const void* expand_weight;  // (expanded channels, in channels)
  Norm expand_norm;
};

}  // namespace effkernels
