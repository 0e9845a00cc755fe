// effkernels_cuda: mbconv. A network of one block: its kernels one after the other, with one workspace for
// all that they exchange.

#include "binding/common/mbconv.h"

#include "binding/cuda/call.h"
#include "cuda/network.h"

namespace effkernels::binding {
namespace {

Tensor mbconv(const Tensor& x, const MbconvTensors& tensors, const Ints& stride, const Ints& padding,
              bool residual, const std::string& activation) {
  Call call("mbconv", x, tensors.expand_weight, tensors.expand, tensors.depthwise_weight, tensors.depthwise,
            tensors.se_reduce_weight, tensors.se_reduce_bias, tensors.se_expand_weight,
            tensors.se_expand_bias, tensors.project_weight, tensors.project);
  Arguments& arguments = call.arguments;
  const Map map = arguments.map(x);
  const MbconvArgs args =
      mbconv_args(arguments, map, tensors, stride, padding, residual, arguments.activation(activation));
  Tensor y = empty_map(x, args.out);
  if (args.out.images == 0) return y;
  cuda::NetworkPlan plan;
  plan.add(args);
  plan.finish();
  void* const results[] = {y.mutable_data_ptr()};
  call.run(plan, map.data, results, nullptr);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("mbconv", TORCH_BOX(&effkernels::binding::mbconv_op<effkernels::binding::mbconv>));
}
