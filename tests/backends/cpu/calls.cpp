// Computes the calls of ops that it reads from its standard input, on plain threads, without torch, and
// writes their results to its standard output. Compiled for Arm by test_arm.py; tests/support/emulator.py
// writes the calls.
//
// A call is the op's name, the number of threads, the arguments in the order of the op's schema, and the
// results as tensors without data. Lists and texts begin with their length; integers have 64 bits, numbers
// are doubles.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/runtime/instruction_sets.h"
#include "plain_threads.h"

namespace {

using namespace effkernels;
using namespace effkernels::cpu;
using Ints = std::vector<int64_t>;

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "calls: %s\n", why.c_str());
  std::exit(1);
}

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) fail("the call ends too early");
}
template <class T>
T read() {
  T value;
  read(&value, sizeof value);
  return value;
}
template <class List>
List read_list() {
  List list(static_cast<size_t>(read<int64_t>()), {});
  read(list.data(), list.size() * sizeof list[0]);
  return list;
}

// The types of elements: those of Dtype, and bytes.
constexpr int64_t kBytes = 3;
constexpr int64_t kElementBytes[] = {4, 2, 2, 1};

// Its first element follows an aligned address by one element, so that no vector is aligned.
class Tensor {
 public:
  Tensor(int64_t type, Ints sizes, Ints strides, int64_t elements)
      : type_(type), sizes_(std::move(sizes)), strides_(std::move(strides)), elements_(elements) {
    storage_.assign(static_cast<size_t>((elements + 1) * kElementBytes[type]), '\xff');
  }

  static Tensor without_data() {
    const auto type = read<int64_t>();
    Ints sizes = read_list<Ints>();
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    return Tensor(type, std::move(sizes), {}, count);
  }
  static Tensor with_data() {
    const auto type = read<int64_t>();
    Ints sizes = read_list<Ints>(), strides = read_list<Ints>();
    Tensor tensor(type, std::move(sizes), std::move(strides), read<int64_t>());
    read(tensor.data(), tensor.bytes());
    return tensor;
  }

  char* data() { return storage_.data() + kElementBytes[type_]; }
  const char* data() const { return storage_.data() + kElementBytes[type_]; }
  float* floats() { return reinterpret_cast<float*>(data()); }
  const float* floats() const { return reinterpret_cast<const float*>(data()); }
  size_t bytes() const { return static_cast<size_t>(elements_ * kElementBytes[type_]); }
  int64_t elements() const { return elements_; }
  int64_t size(size_t i) const { return sizes_[i]; }
  int64_t stride(size_t i) const { return strides_[i]; }
  size_t dimensions() const { return sizes_.size(); }
  bool is_bytes() const { return type_ == kBytes; }
  Dtype dtype() const { return static_cast<Dtype>(type_); }

  // Of a map, (N, C, H, W).
  Shape shape() const {
    return {sizes_[0], static_cast<int>(sizes_[2]), static_cast<int>(sizes_[3]), static_cast<int>(sizes_[1])};
  }

  // The elements, dense in this order of dimensions, outermost first.
  Tensor dense(const std::vector<size_t>& order) const {
    int64_t count = 1;
    for (const int64_t size : sizes_) count *= size;
    Tensor made(type_, sizes_, Ints(sizes_.size()), count);
    for (int64_t i = 0; i < count; ++i) {
      int64_t from = 0, rest = i;
      for (size_t d = order.size(); d-- > 0;) {
        from += rest % sizes_[order[d]] * strides_[order[d]];
        rest /= sizes_[order[d]];
      }
      const int64_t bytes = kElementBytes[type_];
      std::memcpy(made.data() + i * bytes, data() + from * bytes, static_cast<size_t>(bytes));
    }
    return made;
  }

 private:
  int64_t type_;
  Ints sizes_, strides_;
  int64_t elements_;
  std::vector<char> storage_;
};

enum class Kind : int64_t { kNone, kNumber, kInts, kText, kTensor };

// Reads the arguments of one call, and owns them until it ends.
class Arguments {
 public:
  double number() {
    expect(Kind::kNumber);
    return read<double>();
  }
  Ints ints() {
    expect(Kind::kInts);
    return read_list<Ints>();
  }
  const Tensor& tensor() {
    expect(Kind::kTensor);
    return keep(Tensor::with_data());
  }
  // Null if there is none.
  const Tensor* maybe() {
    const Kind kind = read<Kind>();
    if (kind == Kind::kNone) return nullptr;
    if (kind != Kind::kTensor) fail("wants a tensor or none");
    return &keep(Tensor::with_data());
  }

  const Tensor& map() { return keep(tensor().dense(kNhwc)); }
  const Tensor* maybe_map() {
    const Tensor* found = maybe();
    return found == nullptr ? nullptr : &keep(found->dense(kNhwc));
  }
  // A weight, or another parameter.
  const Tensor& dense() { return keep(in_order(tensor())); }
  Parameters parameters() {
    const Tensor* found = maybe();
    if (found == nullptr) return {nullptr, Dtype::kFloat};
    return {keep(in_order(*found)).data(), found->dtype()};
  }
  const float* maybe_floats() { return static_cast<const float*>(parameters().data); }

  Norm norm() {
    Norm norm{};
    for (Parameters* one : {&norm.bias, &norm.gamma, &norm.beta, &norm.mean, &norm.variance}) {
      *one = parameters();
    }
    norm.eps = static_cast<float>(number());
    return norm;
  }
  Window window(const Tensor& weight, bool dilated = true) {
    const Ints stride = ints(), padding = ints(), dilation = dilated ? ints() : Ints{1, 1};
    const auto number = [](int64_t value) { return static_cast<int>(value); };
    return {number(weight.size(2)), number(weight.size(3)), number(stride[0]),   number(stride[1]),
            number(padding[0]),     number(padding[2]),     number(dilation[0]), number(dilation[1])};
  }
  Activation activation() {
    expect(Kind::kText);
    const std::map<std::string, Activation> names{{"identity", Activation::kIdentity},
                                                  {"silu", Activation::kSilu},
                                                  {"relu", Activation::kRelu},
                                                  {"relu6", Activation::kRelu6},
                                                  {"hardswish", Activation::kHardswish}};
    return names.at(read_list<std::string>());
  }
  // The weights of a gate, for `channels` channels; its activation is that of the op.
  SqueezeExciteGateArgs gate(int64_t channels) {
    SqueezeExciteGateArgs args{};
    args.channels = static_cast<int>(channels);
    const Tensor* weight = maybe();
    if (weight != nullptr) {
      args.squeezed = static_cast<int>(weight->size(0));
      args.reduce_weight = {keep(in_order(*weight)).data(), weight->dtype()};
    }
    args.reduce_bias = parameters();
    args.expand_weight = parameters();
    args.expand_bias = parameters();
    return args;
  }

  const Tensor& keep(Tensor tensor) { return kept_.emplace_back(std::move(tensor)); }

 private:
  static inline const std::vector<size_t> kNhwc{0, 2, 3, 1};

  static Tensor in_order(const Tensor& tensor) {
    std::vector<size_t> order(tensor.dimensions());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    return tensor.dense(order);
  }
  static void expect(Kind kind) {
    const Kind found = read<Kind>();
    if (found != kind) {
      fail("an argument of kind " + std::to_string(static_cast<int64_t>(found)) + " instead of " +
           std::to_string(static_cast<int64_t>(kind)));
    }
  }

  std::deque<Tensor> kept_;
};

using Results = std::vector<Tensor>;

// What follows the arguments.
Results read_results() {
  Results results;
  for (auto left = read<int64_t>(); left > 0; --left) results.push_back(Tensor::without_data());
  return results;
}

Results depthwise_conv_bn_act(Arguments& given, int threads) {
  DepthwiseConvBnActArgs args{};
  const Tensor &x = given.map(), &weight = given.dense();
  args.in = x.shape(), args.dtype = x.dtype(), args.x = x.data(), args.weight = weight.data();
  args.norm = given.norm();
  args.window = given.window(weight);
  args.activation = given.activation();
  Results results = read_results();
  args.out = results[0].shape(), args.y = results[0].data();
  if (results.size() > 1) args.mean = results[1].floats();
  run_op(&Kernels::depthwise_conv_bn_act, args, plain_threads(threads));
  return results;
}

Results conv_bn_act(Arguments& given, int threads) {
  ConvBnActArgs args{};
  const Tensor &image = given.tensor(), &weight = given.tensor();
  args.planar = image.stride(3) == 1 && image.stride(1) >= image.size(3);
  const Tensor& x = given.keep(
      image.dense(args.planar ? std::vector<size_t>{0, 1, 2, 3} : std::vector<size_t>{0, 2, 3, 1}));
  args.in = x.shape(), args.x = x.data(), args.bytes = x.is_bytes(), args.dtype = weight.dtype();
  args.weight = weight.data();
  for (size_t i = 0; i < 4; ++i) args.weight_strides[i] = weight.stride(i);
  args.norm = given.norm();
  args.window = given.window(weight);
  args.activation = given.activation();
  args.image_mean = given.parameters();
  args.image_std = given.parameters();
  Results results = read_results();
  args.out = results[0].shape(), args.y = results[0].data();
  run_op(&Kernels::conv_bn_act, args, plain_threads(threads));
  return results;
}

PointwiseConvBnActArgs pointwise_args(Arguments& given) {
  PointwiseConvBnActArgs args{};
  const Tensor &x = given.map(), &weight = given.dense();
  args.in = x.shape(), args.dtype = x.dtype(), args.x = x.data(), args.weight = weight.data();
  args.out_channels = static_cast<int>(weight.size(0));
  args.norm = given.norm();
  return args;
}

Results pointwise_conv_bn_act(Arguments& given, int threads) {
  PointwiseConvBnActArgs args = pointwise_args(given);
  args.gate = given.maybe_floats();
  if (const Tensor* residual = given.maybe_map()) args.residual = residual->data();
  args.activation = given.activation();
  Results results = read_results();
  args.y = results[0].data();
  run_op(&Kernels::pointwise_conv_bn_act, args, plain_threads(threads));
  return results;
}

Results pointwise_conv_bn_act_pool(Arguments& given, int threads) {
  PointwiseConvBnActArgs args = pointwise_args(given);
  args.activation = given.activation();
  Results results = read_results();
  args.mean = results[0].floats();
  run_op(&Kernels::pointwise_conv_bn_act, args, plain_threads(threads));
  return results;
}

Results squeeze_excite_gate(Arguments& given, int threads) {
  const Tensor& pooled = given.dense();
  SqueezeExciteGateArgs args = given.gate(pooled.size(1));
  args.activation = given.activation();
  Results results = read_results();
  args = args.with(pooled.size(0), pooled.floats(), results[0].floats());
  run_op(&Kernels::squeeze_excite_gate, args, plain_threads(threads));
  return results;
}

Results squeeze_excite(Arguments& given, int threads) {
  SqueezeExciteArgs args{};
  const Tensor& x = given.map();
  args.in = x.shape(), args.dtype = x.dtype(), args.x = x.data();
  args.gate = given.gate(x.size(1));
  args.gate.activation = given.activation();
  Results results = read_results();
  args.y = results[0].data();
  run_op(&Kernels::squeeze_excite, args, plain_threads(threads));
  return results;
}

Results mbconv(Arguments& given, int threads) {
  MbconvArgs args{};
  const Tensor& x = given.map();
  args.in = x.shape(), args.dtype = x.dtype(), args.x = x.data();
  args.expand_weight = given.parameters().data;
  args.expand_norm = given.norm();
  const Tensor& depthwise = given.dense();
  args.expanded = static_cast<int>(depthwise.size(0)), args.depthwise_weight = depthwise.data();
  args.depthwise_norm = given.norm();
  args.gate = given.gate(args.expanded);
  args.project_weight = given.dense().data();
  args.project_norm = given.norm();
  args.window = given.window(depthwise, false);
  args.residual = given.number() != 0;
  args.activation = args.gate.activation = given.activation();
  Results results = read_results();
  args.out = results[0].shape(), args.y = results[0].data();
  run_op(&Kernels::mbconv, args, plain_threads(threads));
  return results;
}

Results linear(Arguments& given, int threads) {
  LinearArgs args{};
  const Tensor &x = given.dense(), &weight = given.dense();
  args.images = x.size(0), args.x = x.floats(), args.dtype = weight.dtype(), args.weight = weight.data();
  args.in_features = static_cast<int>(weight.size(1)), args.out_features = static_cast<int>(weight.size(0));
  args.bias = given.parameters();
  Results results = read_results();
  args.y = results[0].data();
  run_op(&Kernels::linear, args, plain_threads(threads));
  return results;
}

Results depthwise_conv_wgrad(Arguments& given, int threads) {
  DepthwiseConvWgradArgs args{};
  const Tensor &x = given.map(), &grad = given.map(), &weight = given.tensor();
  args.in = x.shape(), args.out = grad.shape(), args.x = x.floats(), args.grad = grad.floats();
  args.window = given.window(weight);
  Results results = read_results();
  args.weight = results[0].floats();
  run_op(&Kernels::depthwise_conv_wgrad, args, plain_threads(threads));
  return results;
}

Results exponential(Arguments& given, int) {
  const Tensor& x = given.dense();
  Results results = read_results();
  kernels().exponential(x.floats(), results[0].floats(), x.elements());
  return results;
}

}  // namespace

int main() {
  const std::map<std::string, Results (*)(Arguments&, int)> ops{
      {"depthwise_conv_bn_act", depthwise_conv_bn_act},
      {"depthwise_conv_bn_act_pool", depthwise_conv_bn_act},
      {"conv_bn_act", conv_bn_act},
      {"pointwise_conv_bn_act", pointwise_conv_bn_act},
      {"pointwise_conv_bn_act_pool", pointwise_conv_bn_act_pool},
      {"squeeze_excite_gate", squeeze_excite_gate},
      {"squeeze_excite", squeeze_excite},
      {"mbconv", mbconv},
      {"linear", linear},
      {"depthwise_conv_wgrad", depthwise_conv_wgrad},
      {"exponential", exponential}};
  // The other end closes the pipe after the last call.
  for (int next; (next = std::getc(stdin)) != EOF;) {
    std::ungetc(next, stdin);
    const auto name = read_list<std::string>();
    if (!ops.contains(name)) fail("no op is called " + name);
    const auto threads = static_cast<int>(read<int64_t>());
    Arguments given;
    for (const Tensor& result : ops.at(name)(given, threads)) {
      std::fwrite(result.data(), 1, result.bytes(), stdout);
    }
    std::fflush(stdout);
  }
  return 0;
}
