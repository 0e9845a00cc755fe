#pragma once

#include "args/linear.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// All arguments except the images, x and the result.
inline LinearArgs linear_args(Arguments& arguments, Dtype dtype, int in_features, const Tensor& weight,
                              const MaybeTensor& bias) {
  LinearArgs args{};
  args.in_features = in_features;
  args.out_features = static_cast<int>(weight.size(0));
  args.dtype = dtype;
  args.weight = arguments.like(weight, weight.size(0) * in_features, dtype);
  args.bias = arguments.parameters(bias, args.out_features);
  return args;
}

}  // namespace effkernels::binding
