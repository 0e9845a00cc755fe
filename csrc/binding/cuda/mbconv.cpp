// effkernels_cuda: mbconv. A block's kernels one after the other, with what only they exchange between them:
// the depthwise kernel's partial sums, which the gate's kernel adds.

#include "binding/common/mbconv.h"

#include <algorithm>

#include "binding/cuda/call.h"
#include "cuda/depthwise_conv_bn_act.h"
#include "cuda/pointwise_conv_bn_act.h"
#include "cuda/squeeze_excite_gate.h"

namespace effkernels::binding {
namespace {

// The map that a 1x1 convolution makes.
Tensor pointwise(const Call& call, const Tensor& like, PointwiseConvBnActArgs args) {
  Tensor y = empty_map(like, {args.in.images, args.in.height, args.in.width, args.out_channels});
  args.y = y.mutable_data_ptr();
  Tensor workspace = call.workspace(cuda::pointwise_conv_bn_act_workspace(args));
  call.launch(cuda::pointwise_conv_bn_act, args, floats_of(workspace));
  return y;
}

// The gate from the sums of the depthwise convolution's `parts` of each image.
Tensor gate_of(const Call& call, const Tensor& like, const MbconvArgs& args, Tensor& sums, int parts) {
  Tensor gate = empty_floats(like, args.out.images, args.expanded);
  Tensor means = empty_floats(like, args.out.images, args.expanded);
  const cuda::PartialSums partial{floats_of(sums), parts, args.out.pixels(), floats_of(means)};
  const SqueezeExciteGateArgs gate_args = args.gate.with(args.out.images, nullptr, floats_of(gate));
  call.launch(cuda::squeeze_excite_gate_of_sums, gate_args, partial);
  return gate;
}

Tensor compute(const Call& call, const Tensor& x, const MbconvArgs& args) {
  // The expanded map goes back before the result is allocated.
  Tensor wide, map, gate;
  DepthwiseConvBnActArgs depthwise{};
  depthwise.in = args.in;
  depthwise.in.channels = args.expanded;
  depthwise.x = args.x;
  if (args.expand_weight != nullptr) {
    PointwiseConvBnActArgs expand{};
    expand.in = args.in;
    expand.out_channels = args.expanded;
    expand.dtype = args.dtype;
    expand.x = args.x;
    expand.weight = args.expand_weight;
    expand.norm = args.expand_norm;
    expand.activation = args.activation;
    wide = pointwise(call, x, expand);
    depthwise.x = wide.mutable_data_ptr();
  }
  depthwise.out = args.out;
  depthwise.out.channels = args.expanded;
  depthwise.dtype = args.dtype;
  depthwise.window = args.window;
  depthwise.weight = args.depthwise_weight;
  depthwise.norm = args.depthwise_norm;
  depthwise.activation = args.activation;
  map = empty_map(x, depthwise.out);
  depthwise.y = map.mutable_data_ptr();
  const bool gated = args.gate.squeezed > 0;
  const int parts = gated ? cuda::depthwise_conv_bn_act_parts(depthwise) : 0;
  Tensor sums = empty_floats(x, std::max<int64_t>(args.out.images, 1), int64_t{parts} * args.expanded);
  call.launch(cuda::depthwise_conv_bn_act_sums, depthwise, gated ? floats_of(sums) : nullptr);
  wide = Tensor();
  if (gated) gate = gate_of(call, x, args, sums, parts);

  PointwiseConvBnActArgs project{};
  project.in = depthwise.out;
  project.out_channels = args.out.channels;
  project.dtype = args.dtype;
  project.x = depthwise.y;
  project.weight = args.project_weight;
  project.norm = args.project_norm;
  project.gate = gated ? floats_of(gate) : nullptr;
  project.residual = args.residual ? args.x : nullptr;
  project.activation = Activation::kIdentity;
  return pointwise(call, x, project);
}

Tensor mbconv(const Tensor& x, const MbconvTensors& tensors, const Ints& stride, const Ints& padding,
              bool residual, const std::string& activation) {
  Call call("mbconv", x, tensors.expand_weight, tensors.expand, tensors.depthwise_weight, tensors.depthwise,
            tensors.reduce_weight, tensors.reduce_bias, tensors.gate_weight, tensors.gate_bias,
            tensors.project_weight, tensors.project);
  Arguments& arguments = call.arguments;
  return compute(call, x,
                 mbconv_args(arguments, arguments.map(x), tensors, stride, padding, residual,
                             arguments.activation(activation)));
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("mbconv", TORCH_BOX(&effkernels::binding::mbconv_op<effkernels::binding::mbconv>));
}
