// Activations as the kernels compute them, for the worker of the tests, which calls them through ctypes.

#include "cuda/common/fold.cuh"

namespace {

// In place, kTogether elements at a time, as a thread of a kernel has them.
template <int kTogether>
void activate(effkernels::Activation activation, float* x, int64_t count) {
  for (int64_t i = 0; i + kTogether <= count; i += kTogether) {
    float elements[kTogether];
    for (int e = 0; e < kTogether; ++e) elements[e] = x[i + e];
    effkernels::cuda::activate(activation, elements);
    for (int e = 0; e < kTogether; ++e) x[i + e] = elements[e];
  }
}

}  // namespace

// SiLU of one element, of a pair, or of three: a pair and one more.
extern "C" __attribute__((visibility("default"))) void effkernels_silu(float* x, int64_t count,
                                                                       int together) {
  using effkernels::Activation;
  if (together == 1) activate<1>(Activation::kSilu, x, count);
  if (together == 2) activate<2>(Activation::kSilu, x, count);
  if (together == 3) activate<3>(Activation::kSilu, x, count);
}
