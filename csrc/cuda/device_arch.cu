// Which architecture's code runs on this GPU: the proof that a build holds device code for it.

#include "cuda/device_arch.h"

#include <cuda_runtime.h>

namespace effkernels::cuda {
namespace {

__global__ void device_arch_kernel(int* out) {
#ifdef __CUDA_ARCH__
  *out = __CUDA_ARCH__;
#endif
}

}  // namespace

const char* device_arch(int* out, void* stream) {
  device_arch_kernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(out);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace effkernels::cuda
