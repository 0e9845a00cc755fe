// Whether the launches of a network may overlap.

#include <cstdlib>

#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {
namespace {

// Compiled for the same architectures as the kernels of a network, or for more: those that are compiled for
// some architectures alone need 9.0 themselves. Code for older ones does not wait.
EFFKERNELS_KERNEL(kWarp, 1) dependent_launch_probe_kernel() {
  let_next_launch_begin();
  wait_for_previous_launch();
}

}  // namespace

bool dependent_launches() {
  const char* wanted = std::getenv("EFFKERNELS_DEPENDENT_LAUNCH");
  if (wanted != nullptr && wanted[0] == '0') return false;
  return driver_captures_dependent_launches() && has_tensor_memory<dependent_launch_probe_kernel>();
}

}  // namespace effkernels::cuda
