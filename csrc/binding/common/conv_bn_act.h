#pragma once

#include "args/conv_bn_act.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// Mean and std that normalise images, in the images' units.
struct ImageTensors {
  const MaybeTensor &mean, &std;
};

// All arguments except the result.
inline ConvBnActArgs conv_bn_act_args(Arguments& arguments, const Map& x, const ImageTensors& image,
                                      const Tensor& weight, const NormTensors& norm, const Ints& stride,
                                      const Ints& padding, const Ints& dilation, Activation activation) {
  ConvBnActArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.window = arguments.window(weight, stride, padding, dilation);
  arguments.check(weight.size(1) == args.in.channels, "weight must have the channels of x, ",
                  args.in.channels, ", not ", weight.size(1));
  arguments.check(arguments.dtype(weight) == args.dtype, "weights must have the type of x");
  args.out = arguments.windowed(args.in, weight.size(0), args.window, padding);
  args.x = x.data;
  args.planar = x.planar;
  args.bytes = x.bytes;
  arguments.check(image.mean.has_value() == image.std.has_value(),
                  "images need both mean and std, or neither");
  args.image_mean = arguments.parameters(image.mean, args.in.channels);
  args.image_std = arguments.parameters(image.std, args.in.channels);
  args.weight = weight.const_data_ptr();
  for (int i = 0; i < 4; ++i) args.weight_strides[i] = weight.stride(i);
  args.norm = arguments.norm(norm, args.out.channels);
  args.activation = activation;
  return args;
}

}  // namespace effkernels::binding
