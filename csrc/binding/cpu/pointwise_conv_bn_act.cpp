// effkernels_cpu: pointwise_conv_bn_act, pointwise_conv_bn_act_pool

#include "binding/common/pointwise_conv_bn_act.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor pointwise_conv_bn_act(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                             const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                             const MaybeTensor& variance, double eps, const MaybeTensor& gate,
                             const MaybeTensor& residual, const std::string& activation) {
  Arguments arguments("pointwise_conv_bn_act");
  PointwiseConvBnActArgs args = pointwise_conv_bn_act_args(arguments, arguments.map(x), weight,
                                                           {bias, gamma, beta, mean, variance, eps}, gate,
                                                           arguments.activation(activation));
  if (residual.has_value()) args.residual = pointwise_residual(arguments, *residual, args);
  Tensor y = empty_map(x, pointwise_out(args));
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().pointwise_conv_bn_act, args);
  return y;
}

Tensor pointwise_conv_bn_act_pool(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                                  const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                                  const MaybeTensor& variance, double eps, const std::string& activation) {
  Arguments arguments("pointwise_conv_bn_act_pool");
  PointwiseConvBnActArgs args = pointwise_conv_bn_act_args(arguments, arguments.map(x), weight,
                                                           {bias, gamma, beta, mean, variance, eps},
                                                           std::nullopt, arguments.activation(activation));
  Tensor pooled = empty_floats(x, args.in.images, args.out_channels);
  args.mean = floats_of(pooled);
  if (args.in.images > 0) run(*cpu::kernels().pointwise_conv_bn_act, args);
  return pooled;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("pointwise_conv_bn_act", TORCH_BOX(&effkernels::binding::pointwise_conv_bn_act));
  library.impl("pointwise_conv_bn_act_pool", TORCH_BOX(&effkernels::binding::pointwise_conv_bn_act_pool));
}
