// effkernels_cpu: mbconv

#include "binding/common/mbconv.h"

#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor mbconv(const Tensor& x, const MbconvTensors& tensors, const Ints& stride, const Ints& padding,
              bool residual, const std::string& activation) {
  Arguments arguments("mbconv");
  MbconvArgs args = mbconv_args(arguments, arguments.map(x), tensors, stride, padding, residual,
                                arguments.activation(activation));
  Tensor y = empty_map(x, args.out);
  args.y = y.mutable_data_ptr();
  if (args.in.images > 0) run(*cpu::kernels().mbconv, args);
  return y;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("mbconv", TORCH_BOX(&effkernels::binding::mbconv_op<effkernels::binding::mbconv>));
}
