#include "binding/common/arguments.h"

#include <array>
#include <atomic>
#include <cstring>

namespace effkernels::binding {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;

namespace {

bool supported(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
}

int to_int(int64_t value) { return static_cast<int>(value); }

// Dimensions in memory order, innermost first.
constexpr int kNhwc[] = {1, 3, 2, 0}, kNchw[] = {3, 2, 1, 0};

}  // namespace

Dtype Arguments::dtype(const Tensor& tensor) const {
  const ScalarType type = tensor.scalar_type();
  check(supported(type), "tensors must be float32, bfloat16 or float16, not torch's scalar type ", type);
  if (type == ScalarType::Float) return Dtype::kFloat;
  return type == ScalarType::Half ? Dtype::kHalf : Dtype::kBFloat16;
}

Activation Arguments::activation(const std::string& name) const {
  if (name == "silu") return Activation::kSilu;
  if (name == "relu") return Activation::kRelu;
  if (name == "relu6") return Activation::kRelu6;
  if (name == "hardswish") return Activation::kHardswish;
  check(name == "identity", "unknown activation '", name,
        "': accepted are silu, relu, relu6, hardswish, identity");
  return Activation::kIdentity;
}

std::optional<Shape> Arguments::ordered(const Tensor& x, const int (&order)[4]) const {
  check(x.dim() == 4, "feature maps must have 4 dimensions, not ", x.dim());
  const auto sizes = x.sizes(), strides = x.strides();
  for (const int i : {1, 2, 3}) {
    check(sizes[i] > 0 && sizes[i] < INT32_MAX, "size ", sizes[i], " of dimension ", i,
          " of a feature map is out of range: 1 to ", INT32_MAX - 1);
  }
  // Strides of dimensions of size 1 have no meaning.
  int64_t expected = 1;
  for (const int i : order) {
    if (sizes[i] > 1 && strides[i] != expected) return std::nullopt;
    expected *= sizes[i];
  }
  return Shape{sizes[0], to_int(sizes[2]), to_int(sizes[3]), to_int(sizes[1])};
}

Map Arguments::map(const Tensor& x) { return map(x, dtype(x)); }

Map Arguments::map(const Tensor& x, Dtype type) {
  if (const auto shape = ordered(x, kNhwc)) return {*shape, type, x.const_data_ptr()};
  copies_.push_back(torch::stable::contiguous(x, MemoryFormat::ChannelsLast));
  const Tensor& copy = copies_.back();
  return {*ordered(copy, kNhwc), type, copy.const_data_ptr()};
}

Map Arguments::image(const Tensor& x, const Tensor& weight) {
  const bool bytes = x.scalar_type() == ScalarType::Byte;
  const Dtype type = dtype(bytes ? weight : x);
  const auto planar = ordered(x, kNchw);
  if (!planar || ordered(x, kNhwc)) {
    Map found = map(x, type);
    found.bytes = bytes;
    return found;
  }
  return {*planar, type, x.const_data_ptr(), true, bytes};
}

Window Arguments::window(const Tensor& weight, const Ints& stride, const Ints& padding,
                         const Ints& dilation) const {
  check(weight.dim() == 4 && stride.size() == 2 && padding.size() == 4 && dilation.size() == 2,
        "a convolution needs a weight of 4 dimensions, 2 strides, 4 paddings and 2 dilations, not ",
        weight.dim(), ", ", stride.size(), ", ", padding.size(), " and ", dilation.size());
  for (const int64_t v : {stride[0], stride[1], dilation[0], dilation[1]}) {
    check(v > 0 && v < INT32_MAX, "strides and dilations must be positive 31-bit integers, not ", v);
  }
  for (const int64_t v : padding) {
    check(v >= 0 && v < INT32_MAX / 2, "padding is out of range: ", v, " is not in 0 to ", INT32_MAX / 2 - 1);
  }
  check(weight.size(2) >= 1 && weight.size(3) >= 1 && weight.size(2) <= kMaxKernelRows,
        "the kernel is empty or too large: ", weight.size(2), " by ", weight.size(3), ", at most ",
        kMaxKernelRows, " rows");
  return {to_int(weight.size(2)), to_int(weight.size(3)), to_int(stride[0]),   to_int(stride[1]),
          to_int(padding[0]),     to_int(padding[2]),     to_int(dilation[0]), to_int(dilation[1])};
}

Shape Arguments::windowed(const Shape& in, int64_t channels, const Window& w, const Ints& padding) const {
  const int64_t high = in.height + padding[0] + padding[1] - int64_t{w.dilation_h} * (w.kernel_h - 1) - 1;
  const int64_t wide = in.width + padding[2] + padding[3] - int64_t{w.dilation_w} * (w.kernel_w - 1) - 1;
  check(high >= 0 && wide >= 0, "the kernel does not fit into the input of ", in.height, " by ", in.width,
        " with its padding");
  return {in.images, to_int(high / w.stride_h + 1), to_int(wide / w.stride_w + 1), to_int(channels)};
}

Parameters Arguments::parameters(const Tensor& tensor, int64_t count) {
  check(tensor.numel() == count, "a parameter has the wrong number of elements: ", tensor.numel(), ", not ",
        count);
  const Dtype type = dtype(tensor);
  if (tensor.is_contiguous()) return {tensor.const_data_ptr(), type};
  copies_.push_back(torch::stable::contiguous(tensor));
  return {copies_.back().const_data_ptr(), type};
}

Parameters Arguments::parameters(const MaybeTensor& tensor, int64_t count) {
  return tensor.has_value() ? parameters(*tensor, count) : Parameters{nullptr, Dtype::kFloat};
}

const void* Arguments::like(const Tensor& tensor, int64_t count, Dtype type) {
  const Parameters found = parameters(tensor, count);
  check(found.dtype == type, "weights must have the type of x");
  return found.data;
}

Norm Arguments::norm(const NormTensors& t, int64_t channels) {
  check(t.mean.has_value() == t.variance.has_value(),
        "BatchNorm needs both running mean and variance, or neither");
  return {parameters(t.bias, channels), parameters(t.gamma, channels),    parameters(t.beta, channels),
          parameters(t.mean, channels), parameters(t.variance, channels), static_cast<float>(t.eps)};
}

const float* Arguments::floats(const Tensor& tensor, int64_t count) {
  return static_cast<const float*>(like(tensor, count, Dtype::kFloat));
}

namespace {

std::atomic<bool> fills_new_memory{false};

void fill(AtenTensorHandle tensor) {
  void* data;
  int64_t bytes;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor, &data));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor, &bytes));
  std::memset(data, 0xFF, static_cast<size_t>(bytes));
}

// By torch's C function. Calls by name, like that of torch::stable::empty, take several times as long.
template <size_t kDims>
Tensor empty_strided(const Tensor& like, int32_t type, const std::array<int64_t, kDims>& sizes,
                     const std::array<int64_t, kDims>& strides) {
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle made;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(kDims, sizes.data(), strides.data(), type, device_type, device_index, &made));
  Tensor owner(made);
  if (device_type == aoti_torch_device_type_cpu() && fills_new_memory) fill(made);
  return owner;
}

int32_t type_of(const Tensor& tensor) {
  int32_t type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &type));
  return type;
}

}  // namespace

bool fill_new_memory(bool on) { return fills_new_memory.exchange(on); }

Tensor empty_map(const Tensor& like, const Shape& s) {
  const int64_t row = int64_t{s.width} * s.channels;
  return empty_strided<4>(like, type_of(like), {s.images, s.channels, s.height, s.width},
                          {s.height * row, 1, row, s.channels});
}

Tensor empty_floats(const Tensor& like, int64_t rows, int64_t columns) {
  return empty_strided<2>(like, aoti_torch_dtype_float32(), {rows, columns}, {columns, 1});
}

Tensor empty_rows(const Tensor& like, int64_t rows, int64_t columns) {
  return empty_strided<2>(like, type_of(like), {rows, columns}, {columns, 1});
}

Tensor empty_bytes(const Tensor& like, int64_t bytes) {
  return empty_strided<1>(like, aoti_torch_dtype_uint8(), {bytes}, {1});
}

}  // namespace effkernels::binding
