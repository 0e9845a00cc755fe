#pragma once

#include "args/common.h"
#include "args/squeeze_excite_gate.h"

namespace effkernels {

struct SqueezeExciteArgs {
  Shape in;
  Dtype dtype;  // of x and y
  const void* x;
  SqueezeExciteGateArgs gate;  // images, pooled and gate are not set
  void* y;
};

}  // namespace effkernels
