#pragma once

#include "args/common.h"
#include "args/squeeze_excite_gate.h"

namespace effkernels {

struct MbconvArgs {
  Shape in, out;
  int expanded;  // channels of the expanded map
  Dtype dtype;   // of x, convolution weights and y
  Window window;
  const void* x;
  const void* expand_weight;  // (expanded, in channels), or null without expansion
  Norm expand_norm;
  const void* depthwise_weight;  // (expanded, kernel_h, kernel_w)
  Norm depthwise_norm;
  SqueezeExciteGateArgs gate;  // images, pooled and gate are not set; squeezed is 0 without a gate
  const void* project_weight;  // (out channels, expanded)
  Norm project_norm;
  bool residual;
  Activation activation;
  void* y;
};

}  // namespace effkernels
