// effkernels_cuda: expand_depthwise_conv_bn_act, expand_depthwise_conv_bn_act_pool

#include "cuda/expand_depthwise_conv_bn_act.h"

#include "binding/common/depthwise_conv_bn_act.h"
#include "binding/cuda/call.h"

namespace effkernels::binding {
namespace {

// The arguments of both ops besides x.
struct Convolutions {
  const Tensor& expand_weight;
  NormTensors expand;
  const Tensor& depthwise_weight;
  NormTensors depthwise;
  const Ints &stride, &padding;
  const std::string& activation;
};

Tensor compute(Call& call, const Tensor& x, const Convolutions& convolutions, Tensor* pooled) {
  Arguments& arguments = call.arguments;
  Map map = arguments.map(x);
  ExpandDepthwiseConvBnActArgs args{};
  args.in_channels = map.shape.channels;
  const int64_t channels = convolutions.expand_weight.size(0);
  arguments.check(channels > 0 && channels < INT32_MAX, channels,
                  " expanded channels are out of range: 1 to ", INT32_MAX - 1);
  args.expand_weight = arguments.like(convolutions.expand_weight, channels * args.in_channels, map.dtype);
  args.expand_norm = arguments.norm(convolutions.expand, channels);
  map.shape.channels = static_cast<int>(channels);  // as expanded
  args.depthwise = depthwise_conv_bn_act_args(
      arguments, map, convolutions.depthwise_weight, convolutions.depthwise, convolutions.stride,
      convolutions.padding, {1, 1}, arguments.activation(convolutions.activation));
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
