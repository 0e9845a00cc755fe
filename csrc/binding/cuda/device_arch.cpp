// effkernels_cuda::device_arch(Tensor probe) -> Tensor

#include "cuda/device_arch.h"

#include "binding/cuda/launch.h"

namespace effkernels::binding {
namespace {

using torch::stable::Tensor;

Tensor device_arch(const Tensor& probe) {
  if (!probe.is_cuda()) fail("effkernels_cuda::device_arch: probe must be a CUDA tensor");
  const OnDevice device(probe);
  Tensor result = torch::stable::new_empty(probe, {1}, torch::headeronly::ScalarType::Int);
  int* out = static_cast<int*>(result.mutable_data_ptr());
  check_launch("device_arch", cuda::device_arch(out, device.stream()));
  return result;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("device_arch(Tensor probe) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CUDA, library) {
  library.impl("device_arch", TORCH_BOX(&effkernels::binding::device_arch));
}
