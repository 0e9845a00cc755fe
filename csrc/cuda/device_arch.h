#pragma once

namespace effkernels::cuda {

// Writes the __CUDA_ARCH__ (such as 900) that the running device code was compiled for to *out, in device
// memory, on `stream` (a cudaStream_t). Returns nullptr, or CUDA's error message: "no kernel
// image is available" where this build holds no code for the GPU.
const char* device_arch(int* out, void* stream);

}  // namespace effkernels::cuda
