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
  const int64_t channels = weight.size(0);
  arguments.check(channels > 0 && channels < INT32_MAX, channels, " output channels are out of range: 1 to ",
                  INT32_MAX - 1);
  args.out_channels = static_cast<int>(channels);
  args.x = x.data;
  args.weight = arguments.like(weight, channels * args.in.channels, args.dtype);
  args.norm = arguments.norm(norm, args.out_channels);
  if (gate.has_value()) args.gate = arguments.floats(*gate, args.in.images * args.in.channels);
  args.activation = activation;
  return args;
}

// The shape of the result.
inline Shape pointwise_out(const PointwiseConvBnActArgs& args) {
  return {args.in.images, args.in.height, args.in.width, args.out_channels};
}

// The map to be added to the result.
inline const void* pointwise_residual(Arguments& arguments, const Tensor& residual,
                                      const PointwiseConvBnActArgs& args) {
  const Map added = arguments.map(residual);
  const Shape out = pointwise_out(args);
  arguments.check(added.shape.images == out.images && added.shape.height == out.height &&
                      added.shape.width == out.width && added.shape.channels == out.channels &&
                      added.dtype == args.dtype,
                  "residual must have the shape and type of the result");
  return added.data;
}

}  // namespace effkernels::binding
