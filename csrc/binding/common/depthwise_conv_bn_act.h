#pragma once

#include "args/depthwise_conv_bn_act.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// All arguments except the results.
inline DepthwiseConvBnActArgs depthwise_conv_bn_act_args(Arguments& arguments, const Map& x,
                                                         const Tensor& weight, const NormTensors& norm,
                                                         const Ints& stride, const Ints& padding,
                                                         const Ints& dilation, Activation activation) {
  DepthwiseConvBnActArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.window = arguments.window(weight, stride, padding, dilation);
  args.out = arguments.windowed(args.in, args.in.channels, args.window, padding);
  args.x = x.data;
  const int64_t taps = int64_t{args.window.kernel_h} * args.window.kernel_w;
  args.weight = arguments.like(weight, args.in.channels * taps, args.dtype);
  args.norm = arguments.norm(norm, args.in.channels);
  args.activation = activation;
  return args;
}

}  // namespace effkernels::binding
