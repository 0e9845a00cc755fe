#pragma once

// What every CUDA operator needs around its launch: the device, the stream and errors.

#include "binding/common/torch.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

namespace effkernels::binding {

#ifdef EFFKERNELS_HOST_SHIM

// The tests' host shim runs the kernels on CPU tensors.
#define EFFKERNELS_DISPATCH_KEY CPU

struct OnDevice {
  explicit OnDevice(const torch::stable::Tensor&) {}
  void* stream() const { return nullptr; }
};

#else

#define EFFKERNELS_DISPATCH_KEY CUDA

// Makes a tensor's device the current one until the end of the call.
class OnDevice {
 public:
  explicit OnDevice(const torch::stable::Tensor& tensor)
      : index_(tensor.get_device_index()), guard_(tensor.get_device_index()) {}

  // The stream that torch currently uses on that device, as a cudaStream_t.
  void* stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return stream;
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

#endif

// Throws if a launcher returned an error message.
inline void check_launch(const char* op, const char* error) {
  if (error != nullptr) fail("effkernels_cuda::", op, ": ", error);
}

}  // namespace effkernels::binding
