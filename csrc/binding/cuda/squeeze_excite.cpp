// effkernels_cuda: squeeze_excite

#include "cuda/squeeze_excite.h"

#include "binding/common/squeeze_excite.h"
#include "binding/cuda/call.h"

namespace effkernels::binding {
namespace {

Tensor squeeze_excite(const Tensor& x, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
                      const Tensor& expand_weight, const MaybeTensor& expand_bias,
                      const std::string& activation) {
  Call call("squeeze_excite", x, reduce_weight, reduce_bias, expand_weight, expand_bias);
  SqueezeExciteArgs args = squeeze_excite_args(call.arguments, call.arguments.map(x),
                                               {reduce_weight, reduce_bias, expand_weight, expand_bias},
                                               call.arguments.activation(activation));
  Tensor y = empty_map(x, args.in);
  args.y = y.mutable_data_ptr();
  Tensor workspace = call.workspace(cuda::squeeze_excite_workspace(args));
  call.launch(cuda::squeeze_excite, args, floats_of(workspace));
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("squeeze_excite", TORCH_BOX(&effkernels::binding::squeeze_excite));
}
