// effkernels_cpu: squeeze_excite_gate

#include "binding/common/squeeze_excite_gate.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor squeeze_excite_gate(const Tensor& pooled, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
                           const Tensor& expand_weight, const MaybeTensor& expand_bias,
                           const std::string& activation) {
  Arguments arguments("squeeze_excite_gate");
  SqueezeExciteGateArgs args =
      squeeze_excite_gate_args(arguments, pooled, {reduce_weight, reduce_bias, expand_weight, expand_bias},
                               arguments.activation(activation));
  Tensor y = empty_floats(pooled, args.images, args.channels);
  args.gate = floats_of(y);
  if (args.images > 0) run(*cpu::kernels().squeeze_excite_gate, args);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("squeeze_excite_gate", TORCH_BOX(&effkernels::binding::squeeze_excite_gate));
}
