// effkernels_cpu: squeeze_excite_gate, squeeze_excite, mbconv

#include "binding/common/mbconv.h"

namespace effkernels::binding {
namespace {

SqueezeExciteGateArgs gate_args(Arguments& arguments, int64_t channels, const Tensor& reduce_weight,
                        const MaybeTensor& reduce_bias, const Tensor& expand_weight,
                        const MaybeTensor& expand_bias, Activation activation) {
  const int64_t squeezed = reduce_weight.size(0);
  SqueezeExciteGateArgs args{};
  args.channels = static_cast<int>(channels);
  args.squeezed = static_cast<int>(squeezed);
  args.reduce_weight = arguments.parameters(reduce_weight, squeezed * channels);
  args.reduce_bias = arguments.parameters(reduce_bias, squeezed);
  args.expand_weight = arguments.parameters(expand_weight, squeezed * channels);
  args.expand_bias = arguments.parameters(expand_bias, channels);
  args.activation = activation;
  return args;
}

Tensor gate(const Tensor& pooled, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
            const Tensor& expand_weight, const MaybeTensor& expand_bias, const std::string& activation) {
  Arguments arguments("squeeze_excite_gate");
  arguments.check(pooled.dim() == 2, "pooled must be a matrix");
  const int64_t images = pooled.size(0), channels = pooled.size(1);
  SqueezeExciteGateArgs args = gate_args(arguments, channels, reduce_weight, reduce_bias, expand_weight, expand_bias,
                                 arguments.activation(activation));
  args.images = images;
  args.pooled = arguments.floats(pooled, images * channels);
  Tensor y = empty_floats(pooled, images, channels);
  args.gate = static_cast<float*>(y.mutable_data_ptr());
  if (images > 0) run(*cpu::kernels().squeeze_excite_gate, args);
  return y;
}

Tensor squeeze_excite(const Tensor& x, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
                      const Tensor& expand_weight, const MaybeTensor& expand_bias,
                      const std::string& activation) {
  Arguments arguments("squeeze_excite");
  SqueezeExciteArgs args;
  const Map map = arguments.map(x);
  args.in = map.shape;
  args.dtype = map.dtype;
  args.x = map.data;
  args.gate = gate_args(arguments, args.in.channels, reduce_weight, reduce_bias, expand_weight, expand_bias,
                        arguments.activation(activation));
  Tensor y = empty_map(x, args.in);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().squeeze_excite, args);
  return y;
}

Tensor mbconv(const Tensor& x, const MaybeTensor& expand_weight, const MaybeTensor& expand_bias,
              const MaybeTensor& expand_gamma, const MaybeTensor& expand_beta,
              const MaybeTensor& expand_mean, const MaybeTensor& expand_variance, double expand_eps,
              const Tensor& depthwise_weight, const MaybeTensor& depthwise_bias,
              const MaybeTensor& depthwise_gamma, const MaybeTensor& depthwise_beta,
              const MaybeTensor& depthwise_mean, const MaybeTensor& depthwise_variance, double depthwise_eps,
              const MaybeTensor& se_reduce_weight, const MaybeTensor& se_reduce_bias,
              const MaybeTensor& se_expand_weight, const MaybeTensor& se_expand_bias,
              const Tensor& project_weight, const MaybeTensor& project_bias,
              const MaybeTensor& project_gamma, const MaybeTensor& project_beta,
              const MaybeTensor& project_mean, const MaybeTensor& project_variance, double project_eps,
              const Ints& stride, const Ints& padding, bool residual, const std::string& activation) {
  const MbconvTensors tensors{
      expand_weight,
      {expand_bias, expand_gamma, expand_beta, expand_mean, expand_variance, expand_eps},
      depthwise_weight,
      {depthwise_bias, depthwise_gamma, depthwise_beta, depthwise_mean, depthwise_variance,
       depthwise_eps},
      se_reduce_weight,
      se_reduce_bias,
      se_expand_weight,
      se_expand_bias,
      project_weight,
      {project_bias, project_gamma, project_beta, project_mean, project_variance, project_eps}};
  Arguments arguments("mbconv");
  MbconvArgs args = mbconv_args(arguments, arguments.map(x), tensors, stride, padding, residual,
                                     arguments.activation(activation));
  Tensor y = empty_map(x, args.out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().mbconv, args);
  return y;
}

}  // namespace

MbconvArgs mbconv_args(Arguments& arguments, const Map& x, const MbconvTensors& t, const Ints& stride,
                            const Ints& padding, bool residual, Activation activation) {
  MbconvArgs args{};
  args.in = x.shape;
  args.dtype = x.dtype;
  args.window = arguments.window(t.depthwise_weight, stride, padding, {1, 1});
  const int64_t wide = t.depthwise_weight.size(0);
  args.expanded = static_cast<int>(wide);
  args.out = arguments.windowed(args.in, t.project_weight.size(0), args.window, padding);
  args.x = x.data;
  if (t.expand_weight.has_value()) {
    args.expand_weight = arguments.like(*t.expand_weight, wide * args.in.channels, args.dtype);
    args.expand_norm = arguments.norm(t.expand, wide);
  } else {
    arguments.check(wide == args.in.channels,
                    "without expand, the depthwise weight must have the channels of x");
  }
  const int64_t taps = int64_t{args.window.kernel_h} * args.window.kernel_w;
  args.depthwise_weight = arguments.like(t.depthwise_weight, wide * taps, args.dtype);
  args.depthwise_norm = arguments.norm(t.depthwise, wide);
  args.activation = activation;
  if (t.reduce_weight.has_value()) {
    arguments.check(t.gate_weight.has_value(), "squeeze-excitation needs both weights");
    args.gate =
        gate_args(arguments, wide, *t.reduce_weight, t.reduce_bias, *t.gate_weight, t.gate_bias, activation);
  }
  args.project_weight = arguments.like(t.project_weight, t.project_weight.size(0) * wide, args.dtype);
  args.project_norm = arguments.norm(t.project, args.out.channels);
  args.residual = residual;
  arguments.check(!residual || (args.out.height == args.in.height && args.out.width == args.in.width &&
                                args.out.channels == args.in.channels),
                  "residual needs a result of x's shape");
  return args;
}

}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("squeeze_excite_gate", TORCH_BOX(&effkernels::binding::gate));
  library.impl("squeeze_excite", TORCH_BOX(&effkernels::binding::squeeze_excite));
  library.impl("mbconv", TORCH_BOX(&effkernels::binding::mbconv));
}
