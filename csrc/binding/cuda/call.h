#pragma once

// One call of a CUDA operator: its arguments, read as for the CPU, and the device that it runs on.

#include "args/depthwise_conv_bn_act.h"
#include "binding/common/arguments.h"
#include "binding/cuda/launch.h"
#include "binding/cuda/launch_records.h"
#include "binding/cuda/launch_times.h"
#include "cuda/network.h"

namespace effkernels::binding {

class Call {
 public:
  // All tensors must be on the device of `first`.
  template <class... Tensors>
  Call(const char* op, const Tensor& first, const Tensors&... others)
      : arguments(op, "effkernels_cuda"), op_(op), first_(first), device_(first) {
    (check_beside(others), ...);
  }

  template <class Launcher, class... Args>
  void launch(const Launcher& launcher, const Args&... args) const {
    check_launch(op_, launcher(args..., device_.stream()));
  }

  // Workspace of this many floats. It may be freed before the kernel has run: torch reuses it only for work
  // that comes later on the stream.
  Tensor workspace(int64_t floats) const { return empty_floats(first_, 1, floats); }

  // Runs a plan, with a workspace. `parameters` may be null where the plan has their addresses.
  void run(const cuda::NetworkPlan& plan, const void* input, void* const* results,
           const void* const* parameters) const {
    Tensor space = empty_bytes(first_, plan.bytes());
    const cuda::NetworkMemory memory{input, results, static_cast<char*>(space.mutable_data_ptr()),
                                     parameters};
    const std::unique_ptr<cuda::LaunchTimer> timer = launch_timer();
    check_launch(op_, plan.run(memory, device_.stream(), launch_records(), timer.get()));
    if (timer != nullptr) keep_times(timer->times());
  }

  // Launches a kernel whose result is described by `depthwise`, which is `args` or a part of it; returns the
  // result. Means are written to `pooled` unless it is null.
  template <class Args>
  Tensor launch_depthwise(int64_t (*floats)(const Args&),
                          const char* (*launcher)(const Args&, float*, const cuda::Stream&), const Args& args,
                          DepthwiseConvBnActArgs& depthwise, const Tensor& x, Tensor* pooled) const {
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

  void check_beside(const Tensor& other) const {
    arguments.check(
        other.is_cuda() == first_.is_cuda() && other.get_device_index() == first_.get_device_index(),
        "all tensors must be on one device");
  }
  void check_beside(const std::vector<Tensor>& others) const {
    for (const Tensor& other : others) check_beside(other);
  }

  Arguments arguments;

 private:
  void check_beside(const MaybeTensor& other) const {
    if (other.has_value()) check_beside(*other);
  }

  void check_beside(const NormTensors& norm) const {
    for (const MaybeTensor* vector : {&norm.bias, &norm.gamma, &norm.beta, &norm.mean, &norm.variance}) {
      check_beside(*vector);
    }
  }

  const char* op_;
  const Tensor& first_;
  OnDevice device_;
};

}  // namespace effkernels::binding
