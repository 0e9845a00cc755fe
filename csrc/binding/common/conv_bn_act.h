// The arguments of convolutions with a window, for the CPU and for CUDA.

#include "binding/common/mbconv.h"

namespace effkernels::binding {

DepthwiseConvBnActArgs depthwise_args(Arguments& arguments, const Map& x, const Tensor& weight,
                                  const NormTensors& norm, const Ints& stride, const Ints& padding,
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

ConvBnActArgs conv_args(Arguments& arguments, const Map& x, const ImageTensors& image, const Tensor& weight,
                        const NormTensors& norm, const Ints& stride, const Ints& padding,
                        const Ints& dilation, Activation activation) {
  ConvBnActArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.window = arguments.window(weight, stride, padding, dilation);
  arguments.check(weight.size(1) == args.in.channels, "weight must have the channels of x");
  arguments.check(arguments.dtype(weight) == args.dtype, "weights must have the type of x");
  args.out = arguments.windowed(args.in, weight.size(0), args.window, padding);
  args.x = x.data;
  args.planar = x.planar;
  args.bytes = x.bytes;
  arguments.check(image.mean.has_value() == image.std.has_value(), "images need both of mean and std");
  args.image_mean = arguments.parameters(image.mean, args.in.channels);
  args.image_std = arguments.parameters(image.std, args.in.channels);
  args.weight = weight.const_data_ptr();
  for (int i = 0; i < 4; ++i) args.weight_strides[i] = weight.stride(i);
  args.norm = arguments.norm(norm, args.out.channels);
  args.activation = activation;
  return args;
}

}  // namespace effkernels::binding
