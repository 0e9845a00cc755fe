#pragma once

// What every CUDA operator needs around its launch.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace effkernels::binding {

// The stream that torch uses now on the device of `tensor`, as a cudaStream_t.
inline void* current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

// Throws where a launcher returned CUDA's words for an error.
inline void check_launch(const char* op, const char* error) {
  STD_TORCH_CHECK(error == nullptr, "effkernels_cuda::", op, ": ", error);
}

}  // namespace effkernels::binding
