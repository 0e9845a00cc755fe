// effkernels_cpu: network. All layers of a classifier but the last, by one call; effkernels/ops/network.py
// defines how they are written down.

#include <algorithm>
#include <type_traits>
#include <variant>

#include "binding/cpu/ops.h"

namespace effkernels::binding {
namespace {

// Reads what is written down, step by step.
class Steps {
 public:
  Steps(const std::vector<Tensor>& tensors, const Ints& numbers, const std::vector<double>& eps)
      : tensors_(tensors), numbers_(numbers), eps_(eps) {
    check(numbers.size() % kNumbers == 0 && eps.size() == numbers.size() / kNumbers * 3, "incomplete steps");
  }

  bool next() {
    if (static_cast<size_t>(step_ + 1) * kNumbers >= numbers_.size()) return false;
    ++step_;
    // The tensors of this step in their places; a bit of the mask says whether one is there.
    for (int i = 0; i < kMostTensors; ++i) {
      own_[i].reset();
      if ((number(1) >> i & 1) == 0) continue;
      check(used_ < tensors_.size(), "too few tensors");
      own_[i] = tensors_[used_++];
    }
    return true;
  }

  int64_t kind() const { return number(0); }
  cpu::Activation activation() const {
    // In the order of effkernels.reference.elementwise.ACTIVATIONS.
    constexpr cpu::Activation kOrder[] = {cpu::Activation::kSilu, cpu::Activation::kRelu,
                                          cpu::Activation::kRelu6, cpu::Activation::kHardswish,
                                          cpu::Activation::kIdentity};
    check(number(2) >= 0 && number(2) < 5, "unknown activation");
    return kOrder[number(2)];
  }
  Ints stride() const { return {number(3), number(4)}; }
  Ints padding() const { return {number(5), number(6), number(7), number(8)}; }
  Ints dilation() const { return {number(9), number(10)}; }
  bool residual() const { return number(11) != 0; }

  const MaybeTensor& maybe(int place) const { return own_[place]; }
  const Tensor& tensor(int place) const {
    check(own_[place].has_value(), "a weight is missing");
    return *own_[place];
  }
  // The five vectors from `place` on.
  NormTensors norm(int place, int which) const {
    return {own_[place],     own_[place + 1], own_[place + 2],
            own_[place + 3], own_[place + 4], eps_[static_cast<size_t>(step_) * 3 + which]};
  }

 private:
  static constexpr int kNumbers = 12, kMostTensors = 22;

  static void check(bool fine, const char* what) { STD_TORCH_CHECK(fine, "effkernels_cpu::network: ", what); }
  int64_t number(int i) const { return numbers_[static_cast<size_t>(step_) * kNumbers + i]; }

  const std::vector<Tensor>& tensors_;
  const Ints& numbers_;
  const std::vector<double>& eps_;
  int64_t step_ = -1;
  size_t used_ = 0;
  MaybeTensor own_[kMostTensors];
};

// Images go through all layers in chunks, so that maps stay in the caches and the workspace small. A chunk's
// largest map has at most so many bytes, if it has several images: enough of them that reading the weights
// again costs little.
constexpr int64_t kMapBytes = 8 << 20;

using AnyArgs = std::variant<cpu::ConvArgs, cpu::MbconvArgs, cpu::PointwiseArgs>;

const cpu::Op<cpu::ConvArgs>& op_for(const cpu::Kernels& kernels, const cpu::ConvArgs&) {
  return *kernels.conv;
}
const cpu::Op<cpu::MbconvArgs>& op_for(const cpu::Kernels& kernels, const cpu::MbconvArgs&) {
  return *kernels.mbconv;
}
const cpu::Op<cpu::PointwiseArgs>& op_for(const cpu::Kernels& kernels, const cpu::PointwiseArgs&) {
  return *kernels.pointwise;
}

cpu::Shape& out_of(cpu::ConvArgs& args) { return args.out; }
cpu::Shape& out_of(cpu::MbconvArgs& args) { return args.out; }

// Sets the number of images of a step.
void set_images(AnyArgs& any, int64_t images) {
  std::visit(
      [&](auto& args) {
        args.in.images = images;
        if constexpr (!std::is_same_v<std::decay_t<decltype(args)>, cpu::PointwiseArgs>)
          out_of(args).images = images;
      },
      any);
}

// The steps' arguments for one image, each reading the map of the one before.
std::vector<AnyArgs> prepare(Arguments& arguments, const Map& input, Steps s) {
  std::vector<AnyArgs> prepared;
  Map x{{1, input.shape.height, input.shape.width, input.shape.channels}, input.dtype, nullptr};
  while (s.next()) {
    switch (s.kind()) {
      case 0:
        prepared.emplace_back(conv_args(arguments, x, s.tensor(0), s.norm(1, 0), s.stride(), s.padding(),
                                        s.dilation(), s.activation()));
        x.shape = std::get<cpu::ConvArgs>(prepared.back()).out;
        break;
      case 1:
        prepared.emplace_back(
            mbconv_args(arguments, x,
                        {s.maybe(0), s.norm(1, 0), s.tensor(6), s.norm(7, 1), s.maybe(12), s.maybe(13),
                         s.maybe(14), s.maybe(15), s.tensor(16), s.norm(17, 2)},
                        s.stride(), s.padding(), s.residual(), s.activation()));
        x.shape = std::get<cpu::MbconvArgs>(prepared.back()).out;
        break;
      default:
        arguments.check(s.kind() == 2, "unknown step");
        prepared.emplace_back(
            pointwise_args(arguments, x, s.tensor(0), s.norm(1, 0), std::nullopt, s.activation()));
    }
  }
  bool last = true;
  for (size_t i = prepared.size(); i-- > 0; last = false) {
    arguments.check(std::holds_alternative<cpu::PointwiseArgs>(prepared[i]) == last,
                    "the last step, and it alone, pools");
  }
  arguments.check(!last, "there are no steps");
  return prepared;
}

Tensor network(const Tensor& input, const std::vector<Tensor>& tensors, const Ints& numbers,
               const std::vector<double>& eps) {
  Arguments arguments("network");
  const Map map = arguments.map(input);
  const int element = cpu::size_of(map.dtype);
  std::vector<AnyArgs> steps = prepare(arguments, map, Steps(tensors, numbers, eps));
  const cpu::PointwiseArgs& head = std::get<cpu::PointwiseArgs>(steps.back());
  Tensor pooled = empty_floats(input, map.shape.images, head.out_channels);
  if (map.shape.images == 0) return pooled;

  int64_t largest = 0;  // floats of a map of one image
  for (AnyArgs& any : steps) {
    std::visit(
        [&](auto& args) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(args)>, cpu::PointwiseArgs>) {
            const cpu::Shape& out = out_of(args);
            largest = std::max(largest, (out.pixels() * out.channels * element + 3) / 4);
          }
        },
        any);
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
      set_images(any, images);
      const auto wanted = [&](auto& args) {
        return op_for(kernels, args).scratch_floats(args, threads.count);
      };
      scratch_floats = std::max(scratch_floats, std::visit(wanted, any));
    }
  }
  // Maps lie on cache lines; a step reads one and writes the other.
  const int64_t map_floats = (largest * chunk + 15) / 16 * 16;
  const Workspace workspace(2 * map_floats + scratch_floats);
  float* maps[] = {workspace.data(), nullptr};
  maps[1] = maps[0] + map_floats;
  float* scratch = maps[1] + map_floats;

  const int64_t image_bytes = map.shape.pixels() * map.shape.channels * element;
  for (int64_t first = 0; first < map.shape.images; first += chunk) {
    const int64_t images = std::min(chunk, map.shape.images - first);
    const void* x = static_cast<const char*>(map.data) + first * image_bytes;
    int turn = 0;
    for (AnyArgs& any : steps) {
      set_images(any, images);
      std::visit(
          [&](auto& args) {
            args.x = x;
            if constexpr (std::is_same_v<std::decay_t<decltype(args)>, cpu::PointwiseArgs>) {
              args.mean = static_cast<float*>(pooled.mutable_data_ptr()) + first * args.out_channels;
            } else {
              args.y = maps[turn];
            }
            op_for(kernels, args).run(args, scratch, threads);
          },
          any);
      x = maps[turn];
      turn ^= 1;
    }
  }
  return pooled;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("network", TORCH_BOX(&effkernels::binding::network));
}
