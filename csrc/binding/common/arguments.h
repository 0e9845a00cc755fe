#pragma once

// From torch's arguments to those of the kernels, for the CPU and for CUDA. The Python front has checked
// them; what is checked here again is what would otherwise read or write out of bounds.

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "args/common.h"
#include "binding/common/torch.h"

namespace effkernels::binding {

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

// Bias and BatchNorm as the schemas have them.
struct NormTensors {
  const MaybeTensor &bias, &gamma, &beta, &mean, &variance;
  double eps;
};

// A feature map that is read.
struct Map {
  Shape shape;
  Dtype dtype;  // where x is `bytes`, that of the weights
  const void* data;
  bool planar = false;  // NCHW
  bool bytes = false;   // uint8
};

// Reads the arguments of one call of `op`, and keeps what it had to copy until the call ends.
class Arguments {
 public:
  explicit Arguments(const char* op, const char* library = "effkernels_cpu") : op_(op), library_(library) {}

  // Throws a message made of `message` where `fine` is false; see errors.h.
  template <class... Parts>
  void check(bool fine, const Parts&... message) const {
    if (!fine) fail(library_, "::", op_, ": ", message...);
  }

  Dtype dtype(const Tensor& tensor) const;
  Activation activation(const std::string& name) const;

  // A feature map; a copy where it does not lie in memory as NHWC without gaps.
  Map map(const Tensor& x);
  // The same for a convolution's input: NCHW without gaps stays as it is, and so do bytes.
  Map image(const Tensor& x, const Tensor& weight);
  Window window(const Tensor& weight, const Ints& stride, const Ints& padding, const Ints& dilation) const;
  // The shape of the result of a convolution of `in` with `window`.
  Shape windowed(const Shape& in, int64_t channels, const Window& window, const Ints& padding) const;

  // The elements, in order, of a tensor of any supported type that must have `count` of them.
  Parameters parameters(const Tensor& tensor, int64_t count);
  Parameters parameters(const MaybeTensor& tensor, int64_t count);
  // The same, but of the type that x has.
  const void* like(const Tensor& tensor, int64_t count, Dtype dtype);
  Norm norm(const NormTensors& tensors, int64_t channels);
  const float* floats(const Tensor& tensor, int64_t count);

 private:
  Map map(const Tensor& x, Dtype type);
  // The shape of a feature map that lies in memory in this order of its dimensions, without gaps.
  std::optional<Shape> ordered(const Tensor& x, const int (&order)[4]) const;

  const char *op_, *library_;
  std::vector<Tensor> copies_;
};

// Results, of the type and on the device of `like`.
Tensor empty_map(const Tensor& like, const Shape& shape);
Tensor empty_floats(const Tensor& like, int64_t rows, int64_t columns);
Tensor empty_rows(const Tensor& like, int64_t rows, int64_t columns);

inline float* floats_of(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

}  // namespace effkernels::binding
