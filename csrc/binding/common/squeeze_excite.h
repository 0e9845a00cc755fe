#pragma once

#include "args/squeeze_excite.h"
#include "binding/common/squeeze_excite_gate.h"

namespace effkernels::binding {

// All arguments except the result.
inline SqueezeExciteArgs squeeze_excite_args(Arguments& arguments, const Map& x, const GateTensors& gate,
                                             Activation activation) {
  SqueezeExciteArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.x = x.data;
  args.gate = squeeze_excite_gate_args(arguments, x.shape.channels, gate, activation);
  return args;
}

}  // namespace effkernels::binding
