#pragma once

// Converts torch's arguments to those of the kernels, for the CPU and for CUDA. The Python functions have
// checked them; checked here again is what would otherwise cause reads or writes out of bounds.

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

// Bias and BatchNorm, as in the schemas.
struct NormTensors {
  const MaybeTensor &bias, &gamma, &beta, &mean, &variance;
  double eps;
};

// An input feature map.
struct Map {
  Shape shape;
  Dtype dtype;  // if x is `bytes`, that of the weights
  const void* data;
  bool planar = false;  // NCHW
  bool bytes = false;   // uint8
};

// Reads the arguments of one call of `op`, and owns the copies that it makes, until the call ends.
class Arguments {
 public:
  explicit Arguments(const char* op, const char* library = "effkernels_cpu") : op_(op), library_(library) {}

  // Throws an error with the parts of `message` unless `fine`; see errors.h.
  template <class... Parts>
  void check(bool fine, const Parts&... message) const {
    if (!fine) fail(library_, "::", op_, ": ", message...);
  }

  Dtype dtype(const Tensor& tensor) const;
  Activation activation(const std::string& name) const;

  // A feature map as dense NHWC; copied if it is not.
  Map map(const Tensor& x);
  // The same for a convolution's input: dense NCHW and uint8 are accepted too, without a copy.
  Map image(const Tensor& x, const Tensor& weight);
  Window window(const Tensor& weight, const Ints& stride, const Ints& padding, const Ints& dilation) const;
  // The shape of the result of a convolution of `in` with `window`.
  Shape windowed(const Shape& in, int64_t channels, const Window& window, const Ints& padding) const;

  // The elements of a tensor of any supported type, dense; it must have `count` of them.
  Parameters parameters(const Tensor& tensor, int64_t count);
  Parameters parameters(const MaybeTensor& tensor, int64_t count);
  // The same, for a tensor that must have the type of x.
  const void* like(const Tensor& tensor, int64_t count, Dtype dtype);
  Norm norm(const NormTensors& tensors, int64_t channels);
  const float* floats(const Tensor& tensor, int64_t count);

  // Whether anything had to be copied.
  bool copied() const { return !copies_.empty(); }

 private:
  Map map(const Tensor& x, Dtype type);
  // The shape of a feature map, if it is dense in memory in this order of dimensions.
  std::optional<Shape> ordered(const Tensor& x, const int (&order)[4]) const;

  const char *op_, *library_;
  std::vector<Tensor> copies_;
};

// Allocates results, of the type and on the device of `like`.
Tensor empty_map(const Tensor& like, const Shape& shape);
Tensor empty_floats(const Tensor& like, int64_t rows, int64_t columns);
Tensor empty_rows(const Tensor& like, int64_t rows, int64_t columns);
Tensor empty_bytes(const Tensor& like, int64_t bytes);

// Whether these fill what they allocate on CPUs with NaN, in all threads; returns whether they did before.
// They do not follow torch.utils.deterministic.fill_uninitialized_memory there.
bool fill_new_memory(bool on);

inline float* floats_of(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

}  // namespace effkernels::binding
