// effkernels_cpu: limits. What the kernels refuse beyond, by name: Python asks this module instead of
// knowing it.

#include "args/common.h"
#include "binding/common/torch.h"

namespace effkernels::binding {
namespace {

// The name is in the schema.
int64_t limits() { return kMaxKernelRows; }

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cpu, library) { library.def("limits() -> (int kernel_rows)"); }

// It has no tensors to choose a device by.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CompositeExplicitAutograd, library) {
  library.impl("limits", TORCH_BOX(&effkernels::binding::limits));
}
