// effkernels_cpu: hold. Takes tensors, and gives the number by which later calls refer to them.

#include "binding/common/held.h"

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CompositeExplicitAutograd, library) {
  library.impl("hold", TORCH_BOX(&effkernels::binding::hold));
}
