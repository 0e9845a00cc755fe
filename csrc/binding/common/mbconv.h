#pragma once

#include "args/mbconv.h"
#include "binding/common/squeeze_excite_gate.h"

namespace effkernels::binding {

// The tensors of a block besides x. `expand_weight` and those of the gate may be absent.
struct MbconvTensors {
  const MaybeTensor& expand_weight;
  NormTensors expand;
  const Tensor& depthwise_weight;
  NormTensors depthwise;
  const MaybeTensor &se_reduce_weight, &se_reduce_bias, &se_expand_weight, &se_expand_bias;
  const Tensor& project_weight;
  NormTensors project;
};

// All arguments except the result.
inline MbconvArgs mbconv_args(Arguments& arguments, const Map& x, const MbconvTensors& t, const Ints& stride,
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
  if (t.se_reduce_weight.has_value()) {
    arguments.check(t.se_expand_weight.has_value(), "squeeze-excitation needs both weights");
    args.gate = squeeze_excite_gate_args(
        arguments, wide, {*t.se_reduce_weight, t.se_reduce_bias, *t.se_expand_weight, t.se_expand_bias},
        activation);
  }
  args.project_weight = arguments.like(t.project_weight, t.project_weight.size(0) * wide, args.dtype);
  args.project_norm = arguments.norm(t.project, args.out.channels);
  args.residual = residual;
  arguments.check(!residual || (args.out.height == args.in.height && args.out.width == args.in.width &&
                                args.out.channels == args.in.channels),
                  "residual needs a result with x's shape");
  return args;
}

// Computes a block from its arguments.
using MbconvRun = Tensor (*)(const Tensor& x, const MbconvTensors& tensors, const Ints& stride,
                             const Ints& padding, bool residual, const std::string& activation);

// The op with the schema of mbconv, computed by `run`.
template <MbconvRun run>
Tensor mbconv_op(const Tensor& x, const MaybeTensor& expand_weight, const MaybeTensor& expand_bias,
                 const MaybeTensor& expand_gamma, const MaybeTensor& expand_beta,
                 const MaybeTensor& expand_mean, const MaybeTensor& expand_variance, double expand_eps,
                 const Tensor& depthwise_weight, const MaybeTensor& depthwise_bias,
                 const MaybeTensor& depthwise_gamma, const MaybeTensor& depthwise_beta,
                 const MaybeTensor& depthwise_mean, const MaybeTensor& depthwise_variance,
                 double depthwise_eps, const MaybeTensor& se_reduce_weight, const MaybeTensor& se_reduce_bias,
                 const MaybeTensor& se_expand_weight, const MaybeTensor& se_expand_bias,
                 const Tensor& project_weight, const MaybeTensor& project_bias,
                 const MaybeTensor& project_gamma, const MaybeTensor& project_beta,
                 const MaybeTensor& project_mean, const MaybeTensor& project_variance, double project_eps,
                 const Ints& stride, const Ints& padding, bool residual, const std::string& activation) {
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
  return run(x, tensors, stride, padding, residual, activation);
}

}  // namespace effkernels::binding
