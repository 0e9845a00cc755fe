// effkernels_cpu: squeeze_excite

#include "binding/common/squeeze_excite.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor squeeze_excite(const Tensor& x, const Tensor& reduce_weight, const MaybeTensor& reduce_bias,
                      const Tensor& expand_weight, const MaybeTensor& expand_bias,
                      const std::string& activation) {
  Arguments arguments("squeeze_excite");
  SqueezeExciteArgs args = squeeze_excite_args(arguments, arguments.map(x),
                                               {reduce_weight, reduce_bias, expand_weight, expand_bias},
                                               arguments.activation(activation));
  Tensor y = empty_map(x, args.in);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().squeeze_excite, args);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("squeeze_excite", TORCH_BOX(&effkernels::binding::squeeze_excite));
}
