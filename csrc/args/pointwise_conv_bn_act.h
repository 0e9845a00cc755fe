#pragma once

#include "args/common.h"

namespace effkernels {

struct PointwiseConvBnActArgs {
  Shape in;
  int out_channels;
  Dtype dtype;  // of x, weight, residual and y
  const void* x;
  const void* weight;  // (out channels, in channels)
  Norm norm;
  const float* gate;     // (images, in channels), or null
  const void* residual;  // shape of y, or null
  Activation activation;
  void* y;      // null if only the mean is wanted
  float* mean;  // (images, out channels): means of y over height and width, or null
};

// A step of a network that makes a map, and no means. Before `y` and `mean` are set only the type tells:
// PointwiseConvBnActArgs makes means alone.
struct PointwiseMapArgs : PointwiseConvBnActArgs {};

}  // namespace effkernels
