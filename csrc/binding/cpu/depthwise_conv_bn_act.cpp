// effkernels_cpu: depthwise_conv_bn_act, depthwise_conv_bn_act_pool, conv_bn_act

#include "binding/common/mbconv.h"

namespace effkernels::binding {
namespace {

Tensor depthwise(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& gamma,
                 const MaybeTensor& beta, const MaybeTensor& mean, const MaybeTensor& variance, double eps,
                 const Ints& stride, const Ints& padding, const Ints& dilation,
                 const std::string& activation) {
  Arguments arguments("depthwise_conv_bn_act");
  DepthwiseConvBnActArgs args =
      depthwise_args(arguments, arguments.map(x), weight, {bias, gamma, beta, mean, variance, eps},
                     stride, padding, dilation, arguments.activation(activation));
  Tensor y = empty_map(x, args.out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().depthwise_conv_bn_act, args);
  return y;
}

std::tuple<Tensor, Tensor> depthwise_pool(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                                          const MaybeTensor& gamma, const MaybeTensor& beta,
                                          const MaybeTensor& mean, const MaybeTensor& variance, double eps,
                                          const Ints& stride, const Ints& padding, const Ints& dilation,
                                          const std::string& activation) {
  Arguments arguments("depthwise_conv_bn_act_pool");
  DepthwiseConvBnActArgs args =
      depthwise_args(arguments, arguments.map(x), weight, {bias, gamma, beta, mean, variance, eps},
                     stride, padding, dilation, arguments.activation(activation));
  Tensor y = empty_map(x, args.out), pooled = empty_floats(x, args.out.images, args.out.channels);
  args.y = y.mutable_data_ptr();
  args.mean = static_cast<float*>(pooled.mutable_data_ptr());
  if (args.in.images > 0) run(*cpu::kernels().depthwise_conv_bn_act, args);
  return {y, pooled};
}

Tensor conv(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& gamma,
            const MaybeTensor& beta, const MaybeTensor& mean, const MaybeTensor& variance, double eps,
            const Ints& stride, const Ints& padding, const Ints& dilation, const std::string& activation,
            const MaybeTensor& image_mean, const MaybeTensor& image_std) {
  Arguments arguments("conv_bn_act");
  ConvBnActArgs args = conv_args(arguments, arguments.image(x, weight), {image_mean, image_std}, weight,
                                 {bias, gamma, beta, mean, variance, eps}, stride, padding, dilation,
                                 arguments.activation(activation));
  Tensor y = empty_map(weight, args.out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().conv_bn_act, args);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("depthwise_conv_bn_act", TORCH_BOX(&effkernels::binding::depthwise));
  library.impl("depthwise_conv_bn_act_pool", TORCH_BOX(&effkernels::binding::depthwise_pool));
  library.impl("conv_bn_act", TORCH_BOX(&effkernels::binding::conv));
}
