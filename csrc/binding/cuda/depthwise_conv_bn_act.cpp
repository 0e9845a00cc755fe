// effkernels_cuda: depthwise_conv_bn_act, depthwise_conv_bn_act_pool

#include "binding/common/depthwise_conv_bn_act.h"

#include "binding/cuda/call.h"
#include "cuda/depthwise_conv_bn_act.h"

namespace effkernels::binding {
namespace {

Tensor compute(const Call& call, DepthwiseConvBnActArgs args, const Tensor& x, Tensor* pooled) {
  return call.launch_depthwise(cuda::depthwise_conv_bn_act_workspace, cuda::depthwise_conv_bn_act, args, args,
                               x, pooled);
}

Tensor depthwise_conv_bn_act(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                             const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                             const MaybeTensor& variance, double eps, const Ints& stride, const Ints& padding,
                             const Ints& dilation, const std::string& activation) {
  Call call("depthwise_conv_bn_act", x, weight, bias, gamma, beta, mean, variance);
  Arguments& arguments = call.arguments;
  const NormTensors norm{bias, gamma, beta, mean, variance, eps};
  return compute(call,
                 depthwise_conv_bn_act_args(arguments, arguments.map(x), weight, norm, stride, padding,
                                            dilation, arguments.activation(activation)),
                 x, nullptr);
}

std::tuple<Tensor, Tensor> depthwise_conv_bn_act_pool(const Tensor& x, const Tensor& weight,
                                                      const MaybeTensor& bias, const MaybeTensor& gamma,
                                                      const MaybeTensor& beta, const MaybeTensor& mean,
                                                      const MaybeTensor& variance, double eps,
                                                      const Ints& stride, const Ints& padding,
                                                      const Ints& dilation, const std::string& activation) {
  Call call("depthwise_conv_bn_act_pool", x, weight, bias, gamma, beta, mean, variance);
  Arguments& arguments = call.arguments;
  const NormTensors norm{bias, gamma, beta, mean, variance, eps};
  Tensor pooled;
  Tensor y = compute(call,
                     depthwise_conv_bn_act_args(arguments, arguments.map(x), weight, norm, stride, padding,
                                                dilation, arguments.activation(activation)),
                     x, &pooled);
  return {y, pooled};
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("depthwise_conv_bn_act", TORCH_BOX(&effkernels::binding::depthwise_conv_bn_act));
  library.impl("depthwise_conv_bn_act_pool", TORCH_BOX(&effkernels::binding::depthwise_conv_bn_act_pool));
}
