#pragma once

// From torch's arguments to those of the kernels, for the ops themselves and for `network`. Where results go
// is left open.

#include "binding/common/arguments.h"

namespace effkernels::binding {

DepthwiseConvBnActArgs depthwise_args(Arguments& arguments, const Map& x, const Tensor& weight,
                                  const NormTensors& norm, const Ints& stride, const Ints& padding,
                                  const Ints& dilation, Activation activation);

ConvBnActArgs conv_args(Arguments& arguments, const Map& x, const ImageTensors& image, const Tensor& weight,
                        const NormTensors& norm, const Ints& stride, const Ints& padding,
                        const Ints& dilation, Activation activation);

PointwiseConvBnActArgs pointwise_args(Arguments& arguments, const Map& x, const Tensor& weight,
                                  const NormTensors& norm, const MaybeTensor& gate,
                                  Activation activation);

LinearArgs linear_args(Arguments& arguments, Dtype dtype, int in_features, const Tensor& weight,
                            const MaybeTensor& bias);

// What mbconv takes beside x and its window. `expand_weight` and the gate's tensors may be absent.
struct MbconvTensors {
  const MaybeTensor& expand_weight;
  NormTensors expand;
  const Tensor& depthwise_weight;
  NormTensors depthwise;
  const MaybeTensor &reduce_weight, &reduce_bias, &gate_weight, &gate_bias;
  const Tensor& project_weight;
  NormTensors project;
};

MbconvArgs mbconv_args(Arguments& arguments, const Map& x, const MbconvTensors& tensors,
                            const Ints& stride, const Ints& padding, bool residual,
                            Activation activation);

}  // namespace effkernels::binding
