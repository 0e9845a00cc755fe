// effkernels_cpu: depthwise_conv_bn_act, depthwise_conv_bn_act_pool

#include "binding/common/depthwise_conv_bn_act.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor depthwise_conv_bn_act(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                             const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                             const MaybeTensor& variance, double eps, const Ints& stride, const Ints& padding,
                             const Ints& dilation, const std::string& activation) {
  Arguments arguments("depthwise_conv_bn_act");
  DepthwiseConvBnActArgs args = depthwise_conv_bn_act_args(
      arguments, arguments.map(x), weight, {bias, gamma, beta, mean, variance, eps}, stride, padding,
      dilation, arguments.activation(activation));
  Tensor y = empty_map(x, args.out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().depthwise_conv_bn_act, args);
  return y;
}

std::tuple<Tensor, Tensor> depthwise_conv_bn_act_pool(const Tensor& x, const Tensor& weight,
                                                      const MaybeTensor& bias, const MaybeTensor& gamma,
                                                      const MaybeTensor& beta, const MaybeTensor& mean,
                                                      const MaybeTensor& variance, double eps,
                                                      const Ints& stride, const Ints& padding,
                                                      const Ints& dilation, const std::string& activation) {
  Arguments arguments("depthwise_conv_bn_act_pool");
  DepthwiseConvBnActArgs args = depthwise_conv_bn_act_args(
      arguments, arguments.map(x), weight, {bias, gamma, beta, mean, variance, eps}, stride, padding,
      dilation, arguments.activation(activation));
  Tensor y = empty_map(x, args.out), pooled = empty_floats(x, args.out.images, args.out.channels);
  args.y = y.mutable_data_ptr();
  args.mean = floats_of(pooled);
  if (args.in.images > 0) run(*cpu::kernels().depthwise_conv_bn_act, args);
  return {y, pooled};
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("depthwise_conv_bn_act", TORCH_BOX(&effkernels::binding::depthwise_conv_bn_act));
  library.impl("depthwise_conv_bn_act_pool", TORCH_BOX(&effkernels::binding::depthwise_conv_bn_act_pool));
}
