// effkernels_cuda: pointwise_conv_bn_act, pointwise_conv_bn_act_pool, pointwise_conv_bn_act_squeeze

#include "binding/common/pointwise_conv_bn_act.h"

#include "binding/cuda/call.h"
#include "cuda/pointwise_conv_bn_act.h"

namespace effkernels::binding {
namespace {

void launch(const Call& call, const PointwiseConvBnActArgs& args) {
  Tensor space = call.workspace(cuda::pointwise_conv_bn_act_workspace(args));
  call.launch(cuda::pointwise_conv_bn_act, args, floats_of(space));
}

Tensor pointwise_conv_bn_act(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                             const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                             const MaybeTensor& variance, double eps, const MaybeTensor& gate,
                             const MaybeTensor& residual, const std::string& activation) {
  Call call("pointwise_conv_bn_act", x, weight, bias, gamma, beta, mean, variance, gate, residual);
  Arguments& arguments = call.arguments;
  const NormTensors norm{bias, gamma, beta, mean, variance, eps};
  PointwiseConvBnActArgs args = pointwise_conv_bn_act_args(arguments, arguments.map(x), weight, norm, gate,
                                                           arguments.activation(activation));
  if (residual.has_value()) args.residual = pointwise_residual(arguments, *residual, args);
  Tensor y = empty_map(x, pointwise_out(args));
  args.y = y.mutable_data_ptr();
  launch(call, args);
  return y;
}

using MapAndMeans = std::tuple<Tensor, Tensor>;

// The means alone, or after the map.
template <class Result>
Result with_means(const Tensor& x, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& gamma,
                  const MaybeTensor& beta, const MaybeTensor& mean, const MaybeTensor& variance, double eps,
                  const std::string& activation) {
  constexpr bool kMap = !std::is_same_v<Result, Tensor>;
  Call call(kMap ? "pointwise_conv_bn_act_squeeze" : "pointwise_conv_bn_act_pool", x, weight, bias, gamma,
            beta, mean, variance);
  Arguments& arguments = call.arguments;
  const NormTensors norm{bias, gamma, beta, mean, variance, eps};
  PointwiseConvBnActArgs args = pointwise_conv_bn_act_args(arguments, arguments.map(x), weight, norm,
                                                           std::nullopt, arguments.activation(activation));
  Tensor pooled = empty_floats(x, args.in.images, args.out_channels);
  args.mean = floats_of(pooled);
  if constexpr (kMap) {
    Tensor y = empty_map(x, pointwise_out(args));
    args.y = y.mutable_data_ptr();
    launch(call, args);
    return {y, pooled};
  } else {
    launch(call, args);
    return pooled;
  }
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  using namespace effkernels::binding;
  library.impl("pointwise_conv_bn_act", TORCH_BOX(&effkernels::binding::pointwise_conv_bn_act));
  library.impl("pointwise_conv_bn_act_pool", TORCH_BOX(&with_means<Tensor>));
  library.impl("pointwise_conv_bn_act_squeeze", TORCH_BOX(&with_means<MapAndMeans>));
}
