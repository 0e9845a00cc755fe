#pragma once

#include "args/pointwise_conv_bn_act.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// All arguments except the residual and the results.
inline PointwiseConvBnActArgs pointwise_conv_bn_act_args(Arguments& arguments, const Map& x,
                                                         const Tensor& weight, const NormTensors& norm,
                                                         const MaybeTensor& gate, Activation activation) {
  PointwiseConvBnActArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.out_channels = static_cast<int>(weight.size(0));
  args.x = x.data;
  args.weight = arguments.like(weight, weight.size(0) * args.in.channels, args.dtype);
  args.norm = arguments.norm(norm, args.out_channels);
  if (gate.has_value()) args.gate = arguments.floats(*gate, args.in.images * args.in.channels);
  args.activation = activation;
  return args;
}

}  // namespace effkernels::binding
