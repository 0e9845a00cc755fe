#pragma once

#include "args/squeeze_excite_gate.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// The two layers of a gate, as in the schemas.
struct GateTensors {
  const Tensor& reduce_weight;
  const MaybeTensor& reduce_bias;
  const Tensor& expand_weight;
  const MaybeTensor& expand_bias;
};

// All arguments except images, pooled and gate.
inline SqueezeExciteGateArgs squeeze_excite_gate_args(Arguments& arguments, int64_t channels,
                                                      const GateTensors& t, Activation activation) {
  const int64_t squeezed = t.reduce_weight.size(0);
  SqueezeExciteGateArgs args{};
  args.channels = static_cast<int>(channels);
  args.squeezed = static_cast<int>(squeezed);
  args.reduce_weight = arguments.parameters(t.reduce_weight, squeezed * channels);
  args.reduce_bias = arguments.parameters(t.reduce_bias, squeezed);
  args.expand_weight = arguments.parameters(t.expand_weight, squeezed * channels);
  args.expand_bias = arguments.parameters(t.expand_bias, channels);
  args.activation = activation;
  return args;
}

// Sets the images' means, (images, channels); `gate` itself, of the same shape, is left to the caller.
inline SqueezeExciteGateArgs squeeze_excite_gate_args(Arguments& arguments, const Tensor& pooled,
                                                      const GateTensors& t, Activation activation) {
  arguments.check(pooled.dim() == 2, "pooled must be a matrix, not a tensor of ", pooled.dim(),
                  " dimensions");
  const int64_t images = pooled.size(0), channels = pooled.size(1);
  return squeeze_excite_gate_args(arguments, channels, t, activation)
      .with(images, arguments.floats(pooled, images * channels), nullptr);
}

}  // namespace effkernels::binding
