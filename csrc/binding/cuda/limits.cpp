// effkernels_cuda: limits. The largest sizes that the kernels accept, by name; Python asks this module
// for them and does not repeat them.

#include "args/common.h"
#include "binding/common/torch.h"
#include "cuda/conv_bn_act.h"
#include "cuda/squeeze_excite_gate.h"

namespace effkernels::binding {
namespace {

// In the order of the schema, which names them.
std::tuple<int64_t, int64_t, int64_t> limits() {
  return {kMaxKernelRows, cuda::kMostTerms, cuda::kMostHidden};
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("limits() -> (int kernel_rows, int conv_terms, int gate_hidden_channels)");
}

// It has no tensors that could select a device.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("limits", TORCH_BOX(&effkernels::binding::limits));
}
