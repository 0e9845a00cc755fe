#pragma once

// One call of a CUDA operator: its arguments, read as those of the CPU's, and the device that it runs on.

#include "binding/common/mbconv.h"
#include "binding/cuda/launch.h"
#include "cuda/expand_depthwise_conv_bn_act.h"

namespace effkernels::binding {

inline float* floats_of(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

class Call {
 public:
  // All of the tensors must be where `first` is.
  template <class... Tensors>
  Call(const char* op, const Tensor& first, const Tensors&... others)
      : arguments(op, "effkernels_cuda"), op_(op), first_(first), device_(first) {
    (check_beside(others), ...);
  }

  template <class Launcher, class... Args>
  void launch(const Launcher& launcher, const Args&... args) const {
    check_launch(op_, launcher(args..., device_.stream()));
  }

  // So many floats, which live as long as the result: torch gives them to others in the order of the stream.
  Tensor workspace(int64_t floats) const { return empty_floats(first_, 1, floats); }

  // The map that a launcher of `args` makes, for which `depthwise` is all of them or a part; the means too
  // where `pooled` is somewhere.
  template <class Args>
  Tensor launch_depthwise(int64_t (*floats)(const Args&), const char* (*launcher)(const Args&, float*, void*),
                          const Args& args, DepthwiseConvBnActArgs& depthwise, const Tensor& x,
                          Tensor* pooled) const {
    Tensor y = empty_map(x, depthwise.out);
    depthwise.y = y.mutable_data_ptr();
    if (pooled != nullptr) {
      *pooled = empty_floats(x, depthwise.out.images, depthwise.out.channels);
      depthwise.mean = floats_of(*pooled);
    }
    Tensor space = workspace(floats(args));
    launch(launcher, args, floats_of(space));
    return y;
  }

  Arguments arguments;

 private:
  void check_beside(const Tensor& other) const {
    arguments.check(
        other.is_cuda() == first_.is_cuda() && other.get_device_index() == first_.get_device_index(),
        "all tensors must be on one device");
  }
  void check_beside(const MaybeTensor& other) const {
    if (other.has_value()) check_beside(*other);
  }

  const char* op_;
  const Tensor& first_;
  OnDevice device_;
};

}  // namespace effkernels::binding
