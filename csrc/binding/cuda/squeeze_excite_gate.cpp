// effkernels_cuda: squeeze_excite_gate

#include "cuda/squeeze_excite_gate.h"

#include "binding/common/squeeze_excite_gate.h"
#include "binding/cuda/call.h"

namespace effkernels::binding {
namespace {

Tensor squeeze_excite_gate(const Tensor& pooled, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
                           const Tensor& expand_weight, const MaybeTensor& expand_bias,
                           const std::string& activation) {
  Call call("squeeze_excite_gate", pooled, reduce_weight, reduce_bias, expand_weight, expand_bias);
  SqueezeExciteGateArgs args = squeeze_excite_gate_args(
      call.arguments, pooled, {reduce_weight, reduce_bias, expand_weight, expand_bias},
      call.arguments.activation(activation));
  Tensor y = empty_floats(pooled, args.images, args.channels);
  args.gate = floats_of(y);
  call.launch(cuda::squeeze_excite_gate, args);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("squeeze_excite_gate", TORCH_BOX(&effkernels::binding::squeeze_excite_gate));
}
