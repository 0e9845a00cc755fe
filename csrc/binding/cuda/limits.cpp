// effkernels_cuda: limits. What the kernels refuse beyond, by name: Python asks this module instead of
// knowing them.

#include "binding/common/torch.h"
#include "cuda/conv_bn_act.h"
#include "cuda/squeeze_excite_gate.h"

namespace effkernels::binding {
namespace {

// In the order of the schema, which has the names.
std::tuple<int64_t, int64_t> limits() {
  return {cuda::kMostTerms, cuda::kMostHidden};
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("limits() -> (int conv_terms, int gate_hidden_channels)");
}

// It has no tensors to choose a device by.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("limits", TORCH_BOX(&effkernels::binding::limits));
}
