// effkernels_cuda: hold, release. Takes tensors, and gives the number by which later calls refer to them,
// until it is released.

#include "binding/common/held.h"
#include "network_layout.h"  // generated

namespace effkernels::binding {
namespace {

// Ops have a result.
int64_t release_op(int64_t number) {
  release(number);
  return number;
}

std::string network_layout() { return layout::kFingerprint; }

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("hold(Tensor[] tensors, int[] numbers, float[] eps) -> int");
  library.def("release(int number) -> int");
  library.def("network_layout() -> str");  // the fingerprint of the layout that this build reads
}

// No tensor is computed with, and there may be none that could select a device.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("hold", TORCH_BOX(&effkernels::binding::hold));
  library.impl("release", TORCH_BOX(&effkernels::binding::release_op));
  library.impl("network_layout", TORCH_BOX(&effkernels::binding::network_layout));
}
