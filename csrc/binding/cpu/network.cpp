// effkernels_cpu: network, network_held. Run all layers of a classifier in one call;
// effkernels/_backends/network_layout.py defines the layout in which they are passed.

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <variant>

#include "binding/common/conv_bn_act.h"
#include "binding/common/linear.h"
#include "binding/common/mbconv.h"
#include "binding/common/pointwise_conv_bn_act.h"
#include "binding/cpu/held.h"
#include "binding/cpu/run.h"
#include "network_layout.h"  // generated

namespace effkernels::binding {
namespace {

// Reads the steps of a network from their layout, one by one.
class Steps {
 public:
  Steps(const std::vector<Tensor>& tensors, const Ints& numbers, const std::vector<double>& eps)
      : tensors_(tensors), numbers_(numbers), eps_(eps) {
    check(numbers.size() % layout::kNumbers == 0 &&
              eps.size() == numbers.size() / layout::kNumbers * layout::kMostEps,
          "incomplete steps");
  }

  bool next() {
    if (static_cast<size_t>(step_ + 1) * layout::kNumbers >= numbers_.size()) return false;
    ++step_;
    // The tensors of this step, each at its index; a bit of the mask says whether it is present.
    for (int i = 0; i < layout::kMostTensors; ++i) {
      own_[i].reset();
      if ((number(layout::kPresent) >> i & 1) == 0) continue;
      check(used_ < tensors_.size(), "too few tensors");
      own_[i] = tensors_[used_++];
    }
    return true;
  }

  int64_t kind() const { return number(layout::kKind); }
  Activation activation() const {
    const int64_t which = number(layout::kActivation);
    check(which >= 0 && which < static_cast<int64_t>(std::size(layout::kActivations)), "unknown activation");
    return layout::kActivations[which];
  }
  Ints stride() const { return {number(layout::kStrideVertical), number(layout::kStrideHorizontal)}; }
  Ints padding() const {
    return {number(layout::kPaddingTop), number(layout::kPaddingBottom), number(layout::kPaddingLeft),
            number(layout::kPaddingRight)};
  }
  Ints dilation() const { return {number(layout::kDilationVertical), number(layout::kDilationHorizontal)}; }
  bool residual() const { return number(layout::kResidual) != 0; }

  const MaybeTensor& maybe(int place) const { return own_[place]; }
  const Tensor& tensor(int place) const {
    check(own_[place].has_value(), "a weight is missing");
    return *own_[place];
  }
  // A bias and its BatchNorm, whose tensors are consecutive from `bias` on; `eps` is the index of its eps.
  NormTensors norm(int bias, int eps) const {
    return {own_[bias],     own_[bias + 1], own_[bias + 2],
            own_[bias + 3], own_[bias + 4], eps_[static_cast<size_t>(step_) * layout::kMostEps + eps]};
  }

 private:
  static void check(bool fine, const char* what) {
    if (!fine) fail("effkernels_cpu::network: ", what);
  }
  int64_t number(layout::Number which) const {
    return numbers_[static_cast<size_t>(step_) * layout::kNumbers + which];
  }

  const std::vector<Tensor>& tensors_;
  const Ints& numbers_;
  const std::vector<double>& eps_;
  int64_t step_ = -1;
  size_t used_ = 0;
  MaybeTensor own_[layout::kMostTensors];
};

// Images go through all layers in chunks, so that maps stay in the caches and the workspace stays small. If
// a chunk has several images, its largest map has at most this many bytes: enough images that reading the
// weights again for each chunk costs little.
constexpr int64_t kMapBytes = 8 << 20;

using AnyArgs = std::variant<ConvBnActArgs, MbconvArgs, PointwiseConvBnActArgs, LinearArgs>;

const cpu::Op<ConvBnActArgs>& op_for(const cpu::Kernels& kernels, const ConvBnActArgs&) {
  return *kernels.conv_bn_act;
}
const cpu::Op<MbconvArgs>& op_for(const cpu::Kernels& kernels, const MbconvArgs&) { return *kernels.mbconv; }
const cpu::Op<PointwiseConvBnActArgs>& op_for(const cpu::Kernels& kernels, const PointwiseConvBnActArgs&) {
  return *kernels.pointwise_conv_bn_act;
}
const cpu::Op<LinearArgs>& op_for(const cpu::Kernels& kernels, const LinearArgs&) { return *kernels.linear; }

// Bytes of a step's result for one image; vectors do not count.
template <class Args>
int64_t map_bytes(const Args& args) {
  return args.out.pixels() * args.out.channels * size_of(args.dtype);
}
int64_t map_bytes(const PointwiseConvBnActArgs&) { return 0; }
int64_t map_bytes(const LinearArgs&) { return 0; }

// Sets the number of images of a step.
template <class Args>
void set_images(Args& args, int64_t images) {
  args.in.images = args.out.images = images;
}
void set_images(PointwiseConvBnActArgs& args, int64_t images) { args.in.images = images; }
void set_images(LinearArgs& args, int64_t images) { args.images = images; }

// Where a step reads and writes. The vectors after pooling are in the workspace, or in the result if they
// are it.
struct Places {
  const void* x;
  void* map;
  float* pooled;
  void* result;
};

template <class Args>
void set_places(Args& args, const Places& places) {
  args.x = places.x;
  args.y = places.map;
}
void set_places(PointwiseConvBnActArgs& args, const Places& places) {
  args.x = places.x;
  args.mean = places.pooled;
}
void set_places(LinearArgs& args, const Places& places) {
  args.x = places.pooled;
  args.y = places.result;
}

// The arguments of the steps for one image; each step reads the map that the previous one wrote.
std::vector<AnyArgs> prepare(Arguments& arguments, const Map& input, Steps s) {
  std::vector<AnyArgs> prepared;
  Map x = input;
  x.shape.images = 1;
  x.data = nullptr;
  while (s.next()) {
    const bool pooled = !prepared.empty() && std::holds_alternative<PointwiseConvBnActArgs>(prepared.back());
    arguments.check(pooled == (s.kind() == layout::kLinear) &&
                        (prepared.empty() || !std::holds_alternative<LinearArgs>(prepared.back())),
                    "only one linear step may follow the step that pools");
    switch (s.kind()) {
      case layout::kConvBnAct: {
        namespace t = layout::conv_bn_act;
        static_assert(t::kRunningVar == t::kBias + 4);
        prepared.emplace_back(conv_bn_act_args(arguments, x, {s.maybe(t::kMean), s.maybe(t::kStd)},
                                               s.tensor(t::kWeight), s.norm(t::kBias, t::kEps), s.stride(),
                                               s.padding(), s.dilation(), s.activation()));
        x.shape = std::get<ConvBnActArgs>(prepared.back()).out;
        x.planar = x.bytes = false;
        break;
      }
      case layout::kMbconv: {
        namespace t = layout::mbconv;
        static_assert(t::kExpandRunningVar == t::kExpandBias + 4 &&
                      t::kDepthwiseRunningVar == t::kDepthwiseBias + 4 &&
                      t::kProjectRunningVar == t::kProjectBias + 4);
        prepared.emplace_back(mbconv_args(
            arguments, x,
            {s.maybe(t::kExpandWeight), s.norm(t::kExpandBias, t::kExpandEps), s.tensor(t::kDepthwiseWeight),
             s.norm(t::kDepthwiseBias, t::kDepthwiseEps), s.maybe(t::kSeReduceWeight),
             s.maybe(t::kSeReduceBias), s.maybe(t::kSeExpandWeight), s.maybe(t::kSeExpandBias),
             s.tensor(t::kProjectWeight), s.norm(t::kProjectBias, t::kProjectEps)},
            s.stride(), s.padding(), s.residual(), s.activation()));
        x.shape = std::get<MbconvArgs>(prepared.back()).out;
        break;
      }
      case layout::kPointwiseConvBnActPool: {
        namespace t = layout::pointwise_conv_bn_act_pool;
        static_assert(t::kRunningVar == t::kBias + 4);
        prepared.emplace_back(pointwise_conv_bn_act_args(
            arguments, x, s.tensor(t::kWeight), s.norm(t::kBias, t::kEps), std::nullopt, s.activation()));
        break;
      }
      default: {
        namespace t = layout::linear;
        arguments.check(s.kind() == layout::kLinear, "unknown step");
        prepared.emplace_back(linear_args(arguments, x.dtype,
                                          std::get<PointwiseConvBnActArgs>(prepared.back()).out_channels,
                                          s.tensor(t::kWeight), s.maybe(t::kBias)));
      }
    }
  }
  arguments.check(!prepared.empty() && (std::holds_alternative<PointwiseConvBnActArgs>(prepared.back()) ||
                                        std::holds_alternative<LinearArgs>(prepared.back())),
                  "the last map must be pooled");
  return prepared;
}

// Whether the first step can read NCHW and uint8. Its weight is the first tensor.
bool begins_with_convolution(const std::vector<Tensor>& tensors, const Ints& numbers) {
  return !numbers.empty() && numbers[layout::kKind] == layout::kConvBnAct && !tensors.empty();
}

Tensor network(const Tensor& input, const std::vector<Tensor>& tensors, const Ints& numbers,
               const std::vector<double>& eps) {
  Arguments arguments("network");
  const Map map = begins_with_convolution(tensors, numbers) ? arguments.image(input, tensors.front())
                                                            : arguments.map(input);
  std::vector<AnyArgs> steps = prepare(arguments, map, Steps(tensors, numbers, eps));
  // All weights have one type, and the first tensor is a weight.
  // For each image: the pooled vectors, and the results computed from them.
  const auto* linear = std::get_if<LinearArgs>(&steps.back());
  const auto& head = std::get<PointwiseConvBnActArgs>(steps[steps.size() - (linear == nullptr ? 1 : 2)]);
  Tensor result = linear == nullptr ? empty_floats(input, map.shape.images, head.out_channels)
                                    : empty_rows(tensors.front(), map.shape.images, linear->out_features);
  if (map.shape.images == 0) return result;

  int64_t largest = 0;  // floats of a map of one image
  for (const AnyArgs& any : steps) {
    const int64_t bytes = std::visit([](const auto& args) { return map_bytes(args); }, any);
    largest = std::max(largest, (bytes + 3) / 4);
  }
  const int64_t most =
      std::clamp<int64_t>(kMapBytes / (4 * std::max<int64_t>(1, largest)), 1, map.shape.images);
  const int64_t chunks = (map.shape.images + most - 1) / most;
  const int64_t chunk = (map.shape.images + chunks - 1) / chunks;

  const cpu::Kernels& kernels = cpu::kernels();
  const cpu::Threads threads = torch_threads();
  int64_t scratch_floats = 0;
  const int64_t counts[] = {chunk, map.shape.images - (map.shape.images - 1) / chunk * chunk};
  for (const int64_t images : counts) {
    for (AnyArgs& any : steps) {
      const auto wanted = [&](auto& args) {
        set_images(args, images);
        return op_for(kernels, args).scratch_floats(args, threads.count);
      };
      scratch_floats = std::max(scratch_floats, std::visit(wanted, any));
    }
  }
  // Maps begin on cache lines; each step reads one of them and writes the other.
  const int64_t map_floats = (largest * chunk + 15) / 16 * 16;
  const int64_t pooled_floats = (head.out_channels * chunk + 15) / 16 * 16;
  const Workspace workspace(2 * map_floats + pooled_floats + scratch_floats);
  float* maps[] = {workspace.data(), nullptr};
  maps[1] = maps[0] + map_floats;
  float* scratch = maps[1] + map_floats + pooled_floats;

  const int64_t image_bytes = map.shape.pixels() * map.shape.channels * (map.bytes ? 1 : size_of(map.dtype));
  const int64_t result_bytes = linear == nullptr ? head.out_channels * int64_t{sizeof(float)}
                                                 : linear->out_features * size_of(linear->dtype);
  for (int64_t first = 0; first < map.shape.images; first += chunk) {
    const int64_t images = std::min(chunk, map.shape.images - first);
    Places places{static_cast<const char*>(map.data) + first * image_bytes, nullptr, nullptr,
                  static_cast<char*>(result.mutable_data_ptr()) + first * result_bytes};
    places.pooled = linear == nullptr ? static_cast<float*>(places.result) : maps[1] + map_floats;
    int turn = 0;
    for (AnyArgs& any : steps) {
      places.map = maps[turn];
      std::visit(
          [&](auto& args) {
            set_images(args, images);
            set_places(args, places);
            op_for(kernels, args).run(args, scratch, threads);
          },
          any);
      places.x = maps[turn];
      turn ^= 1;
    }
  }
  return result;
}

// The same of a network that is held. Its tensors are read anew: shapes, types and memory may have changed.
Tensor network_held(const Tensor& input, int64_t number) {
  const std::shared_ptr<const Held> own = held(number);
  return network(input, own->tensors(), own->numbers(), own->eps());
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("network", TORCH_BOX(&effkernels::binding::network));
  library.impl("network_held", TORCH_BOX(&effkernels::binding::network_held));
}
