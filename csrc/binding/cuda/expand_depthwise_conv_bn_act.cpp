// effkernels_cuda: expand_depthwise_conv_bn_act, expand_depthwise_conv_bn_act_pool

#include "cuda/expand_depthwise_conv_bn_act.h"

#include "binding/common/depthwise_conv_bn_act.h"
#include "binding/common/pointwise_conv_bn_act.h"
#include "binding/cuda/call.h"

namespace effkernels::binding {
namespace {

// The arguments of both ops beside x.
struct Convolutions {
  const Tensor& expand_weight;
  NormTensors expand;
  const Tensor& depthwise_weight;
  NormTensors depthwise;
  const Ints &stride, &padding;
  const std::string& activation;
};

Tensor compute(Call& call, const Tensor& x, const Convolutions& two, Tensor* pooled) {
  Arguments& arguments = call.arguments;
  const Activation activation = arguments.activation(two.activation);
  Map map = arguments.map(x);
  const PointwiseConvBnActArgs expand =
      pointwise_conv_bn_act_args(arguments, map, two.expand_weight, two.expand, std::nullopt, activation);
  map.shape = pointwise_out(expand);
  ExpandDepthwiseConvBnActArgs args{};
  args.in_channels = expand.in.channels;
  args.x = expand.x;
  args.expand_weight = expand.weight;
  args.expand_norm = expand.norm;
  args.depthwise = depthwise_conv_bn_act_args(arguments, map, two.depthwise_weight, two.depthwise, two.stride,
                                              two.padding, {1, 1}, activation);
  return call.launch_depthwise(cuda::expand_depthwise_conv_bn_act_workspace,
                               cuda::expand_depthwise_conv_bn_act, args, args.depthwise, x, pooled);
}

using WithMeans = std::tuple<Tensor, Tensor>;

template <class Result>
Result expand_depthwise_conv_bn_act(const Tensor& x, const Tensor& expand_weight,
                                    const MaybeTensor& expand_bias, const MaybeTensor& expand_gamma,
                                    const MaybeTensor& expand_beta, const MaybeTensor& expand_mean,
                                    const MaybeTensor& expand_variance, double expand_eps,
                                    const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& gamma,
                                    const MaybeTensor& beta, const MaybeTensor& mean,
                                    const MaybeTensor& variance, double eps, const Ints& stride,
                                    const Ints& padding, const std::string& activation) {
  constexpr bool kPooled = std::is_same_v<Result, WithMeans>;
  Call call(kPooled ? "expand_depthwise_conv_bn_act_pool" : "expand_depthwise_conv_bn_act", x, expand_weight,
            expand_bias, expand_gamma, expand_beta, expand_mean, expand_variance, weight, bias, gamma, beta,
            mean, variance);
  const Convolutions convolutions{
      expand_weight, {expand_bias, expand_gamma, expand_beta, expand_mean, expand_variance, expand_eps},
      weight,        {bias, gamma, beta, mean, variance, eps},
      stride,        padding,
      activation};
  if constexpr (kPooled) {
    Tensor pooled;
    Tensor y = compute(call, x, convolutions, &pooled);
    return {y, pooled};
  } else {
    return compute(call, x, convolutions, nullptr);
  }
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  using namespace effkernels::binding;
  library.impl("expand_depthwise_conv_bn_act", TORCH_BOX(&expand_depthwise_conv_bn_act<Tensor>));
  library.impl("expand_depthwise_conv_bn_act_pool", TORCH_BOX(&expand_depthwise_conv_bn_act<WithMeans>));
}
