// effkernels_cpu: pointwise_conv_bn_act, pointwise_conv_bn_act_pool

#include "binding/cpu/arguments.h"

namespace effkernels::binding {
namespace {

cpu::PointwiseArgs pointwise_args(Arguments& arguments, const Tensor& x, const Tensor& weight, const NormTensors& norm,
                                  const MaybeTensor& gate, const std::string& activation) {
  arguments.check(weight.dim() == 2, "weight must be a matrix");
  cpu::PointwiseArgs args{};
  args.in = arguments.map(x);
  args.dtype = arguments.dtype(x);
  args.out_channels = static_cast<int>(weight.size(0));
  args.x = x.const_data_ptr();
  args.weight = arguments.like(weight, weight.size(0) * args.in.channels, args.dtype);
  args.norm = arguments.norm(norm, args.out_channels);
  if (gate.has_value()) args.gate = arguments.floats(*gate, args.in.images * args.in.channels);
  args.activation = arguments.activation(activation);
  return args;
}

Tensor pointwise(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& bn_weight,
                 const MaybeTensor& bn_bias, const MaybeTensor& mean, const MaybeTensor& variance, double eps,
                 const MaybeTensor& gate, const MaybeTensor& residual, const std::string& activation) {
  Arguments arguments("pointwise_conv_bn_act");
  cpu::PointwiseArgs args =
      pointwise_args(arguments, x, weight, {bias, bn_weight, bn_bias, mean, variance, eps}, gate, activation);
  const cpu::Shape out{args.in.images, args.in.height, args.in.width, args.out_channels};
  if (residual.has_value()) {
    const cpu::Shape shape = arguments.map(*residual);
    arguments.check(shape.images == out.images && shape.height == out.height && shape.width == out.width &&
                        shape.channels == out.channels && arguments.dtype(*residual) == args.dtype,
                    "residual must have the shape and type of the result");
    args.residual = residual->const_data_ptr();
  }
  Tensor y = empty_map(x, out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().pointwise, args, x);
  return y;
}

Tensor pointwise_pool(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& bn_weight,
                      const MaybeTensor& bn_bias, const MaybeTensor& mean, const MaybeTensor& variance, double eps,
                      const std::string& activation) {
  Arguments arguments("pointwise_conv_bn_act_pool");
  cpu::PointwiseArgs args =
      pointwise_args(arguments, x, weight, {bias, bn_weight, bn_bias, mean, variance, eps}, std::nullopt, activation);
  Tensor pooled = empty_floats(x, args.in.images, args.out_channels);
  args.mean = static_cast<float*>(pooled.mutable_data_ptr());
  if (args.in.images > 0) run(*cpu::kernels().pointwise, args, x);
  return pooled;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("pointwise_conv_bn_act", TORCH_BOX(&effkernels::binding::pointwise));
  library.impl("pointwise_conv_bn_act_pool", TORCH_BOX(&effkernels::binding::pointwise_pool));
}
