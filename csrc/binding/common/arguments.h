#pragma once

// From torch's arguments to what the kernels take. The Python front has checked them; what is checked here
// again is what would otherwise read or write out of bounds.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "binding/cpu/workspace.h"
#include "cpu/runtime/instruction_sets.h"

namespace effkernels::binding {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

// Bias and BatchNorm as the schemas have them.
struct NormTensors {
  const MaybeTensor &bias, &weight, &shift, &mean, &variance;
  double eps;
};

// What images are normalised with, in their units.
struct ImageTensors {
  const MaybeTensor &mean, &std;
};

// A feature map that is read.
struct Map {
  Shape shape;
  Dtype dtype;  // of `bytes`, what they are computed in
  const void* data;
  bool planar = false;  // NCHW
  bool bytes = false;   // uint8
};

// Reads the arguments of one call of `op`, and keeps what it had to copy until the call ends.
class Arguments {
 public:
  explicit Arguments(const char* op, const char* library = "effkernels_cpu") : op_(op), library_(library) {}

  void check(bool fine, const char* what) const { STD_TORCH_CHECK(fine, library_, "::", op_, ": ", what); }

  Dtype dtype(const Tensor& tensor) const;
  Activation activation(const std::string& name) const;

  // A feature map; a copy where it does not lie in memory as NHWC without gaps.
  Map map(const Tensor& x);
  // The same for a convolution's input: NCHW without gaps stays as it is, and so do bytes.
  Map image(const Tensor& x, const Tensor& weight);
  // The sizes of what a window makes of `in`.
  Shape windowed(const Shape& in, int64_t channels, const Window& window,
                      const Ints& padding) const;
  Window window(const Tensor& weight, const Ints& stride, const Ints& padding,
                     const Ints& dilation) const;

  // The elements of a tensor of `count` elements in order, of any supported type.
  Parameters parameters(const Tensor& tensor, int64_t count);
  Parameters parameters(const MaybeTensor& tensor, int64_t count);
  // The same, but of the type that x has.
  const void* like(const Tensor& tensor, int64_t count, Dtype dtype);
  Norm norm(const NormTensors& tensors, int64_t channels);
  const float* floats(const Tensor& tensor, int64_t count);

 private:
  Map map(const Tensor& x, Dtype type);
  // The sizes of a feature map where it lies in memory in this order of its dimensions, without gaps.
  std::optional<Shape> ordered(const Tensor& x, const int (&order)[4]) const;

  const char *op_, *library_;
  std::vector<Tensor> copies_;
};

// Results, of the type and on the device of `like`.
Tensor empty_map(const Tensor& like, const Shape& shape);
Tensor empty_floats(const Tensor& like, int64_t rows, int64_t columns);
Tensor empty_rows(const Tensor& like, int64_t rows, int64_t columns);

inline cpu::Threads torch_threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int workers, void (*body)(const void*, int), const void* context) {
            torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) body(context, static_cast<int>(i));
            });
          }};
}

// Runs one op of the instruction set in use on torch's threads.
template <class Args>
void run(const cpu::Op<Args>& op, const Args& args) {
  const cpu::Threads threads = torch_threads();
  const Workspace scratch(op.scratch_floats(args, threads.count));
  op.run(args, scratch.data(), threads);
}

}  // namespace effkernels::binding
