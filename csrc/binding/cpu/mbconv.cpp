// effkernels_cpu: mbconv

#include "binding/common/mbconv.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor mbconv(const Tensor& x, const MaybeTensor& expand_weight, const MaybeTensor& expand_bias,
              const MaybeTensor& expand_gamma, const MaybeTensor& expand_beta, const MaybeTensor& expand_mean,
              const MaybeTensor& expand_variance, double expand_eps, const Tensor& depthwise_weight,
              const MaybeTensor& depthwise_bias, const MaybeTensor& depthwise_gamma,
              const MaybeTensor& depthwise_beta, const MaybeTensor& depthwise_mean,
              const MaybeTensor& depthwise_variance, double depthwise_eps,
              const MaybeTensor& se_reduce_weight, const MaybeTensor& se_reduce_bias,
              const MaybeTensor& se_expand_weight, const MaybeTensor& se_expand_bias,
              const Tensor& project_weight, const MaybeTensor& project_bias, const MaybeTensor& project_gamma,
              const MaybeTensor& project_beta, const MaybeTensor& project_mean,
              const MaybeTensor& project_variance, double project_eps, const Ints& stride,
              const Ints& padding, bool residual, const std::string& activation) {
  const MbconvTensors tensors{
      expand_weight,
      {expand_bias, expand_gamma, expand_beta, expand_mean, expand_variance, expand_eps},
      depthwise_weight,
      {depthwise_bias, depthwise_gamma, depthwise_beta, depthwise_mean, depthwise_variance, depthwise_eps},
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
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("mbconv", TORCH_BOX(&effkernels::binding::mbconv));
}
