// effkernels_cpu: fill_new_memory.

#include "binding/common/arguments.h"

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cpu, library) {
  library.def("fill_new_memory(bool on) -> (bool before)");
}

// It has no tensors that could select a device.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CompositeExplicitAutograd, library) {
  library.impl("fill_new_memory", TORCH_BOX(&effkernels::binding::fill_new_memory));
}
