// effkernels_cpu: network, network_maps, and the same of a network that is held. Run all layers in one call.

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "binding/common/held.h"
#include "binding/common/network.h"
#include "binding/common/plans.h"
#include "binding/cpu/network_clock.h"
#include "binding/cpu/run.h"
#include "cpu/runtime/crew.h"

namespace effkernels::binding {
namespace {

// Images go through all layers in chunks, so that maps stay in the caches and the workspace stays small. If
// a chunk has several images, its largest map has at most this many bytes: enough images that reading the
// weights again for each chunk costs little.
constexpr int64_t kMapBytes = 8 << 20;

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
int64_t map_bytes(const PointwiseMapArgs& args) {
  return args.in.pixels() * args.out_channels * size_of(args.dtype);
}
int64_t map_bytes(const LinearArgs&) { return 0; }

// Sets the number of images of a step.
template <class Args>
void set_images(Args& args, int64_t images) {
  args.in.images = args.out.images = images;
}
void set_images(PointwiseConvBnActArgs& args, int64_t images) { args.in.images = images; }
void set_images(PointwiseMapArgs& args, int64_t images) { args.in.images = images; }
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

// `steps`: as network_args makes them of `map`, which is `input`. `maps`: whether maps are the results, in
// the order of their steps, and not vectors.
std::vector<Tensor> run_steps(NetworkClock& clock, const Tensor& input, const Map& map,
                              const NetworkDescription& description, std::vector<StepArgs> steps, bool maps) {
  const std::vector<size_t> returned = returned_steps(description);
  // All weights have one type, and the first tensor is a weight.
  const Tensor& weight = description.tensors.front();
  std::vector<Tensor> results;
  for (const size_t i : returned) results.push_back(empty_map(weight, map_of(steps[i])));
  // For each image: the pooled vectors, and the results computed from them.
  const auto* linear = std::get_if<LinearArgs>(&steps.back());
  const auto* head = std::get_if<PointwiseConvBnActArgs>(&steps[steps.size() - (linear == nullptr ? 1 : 2)]);
  const int64_t pooled = maps ? 0 : head->out_channels;
  if (!maps) {
    results.push_back(linear == nullptr ? empty_floats(input, map.shape.images, pooled)
                                        : empty_rows(weight, map.shape.images, linear->out_features));
  }
  if (map.shape.images == 0) return results;

  int64_t largest = 0;  // floats of a map of one image
  for (const StepArgs& any : steps) {
    const int64_t bytes = std::visit([](const auto& args) { return map_bytes(args); }, any);
    largest = std::max(largest, (bytes + 3) / 4);
  }
  const int64_t most =
      std::clamp<int64_t>(kMapBytes / (4 * std::max<int64_t>(1, largest)), 1, map.shape.images);
  const int64_t chunks = (map.shape.images + most - 1) / most;
  const int64_t chunk = (map.shape.images + chunks - 1) / chunks;

  const cpu::Kernels& kernels = cpu::kernels();
  const cpu::Threads pool = torch_threads();
  int64_t scratch_floats = 0;
  const int64_t counts[] = {chunk, map.shape.images - (map.shape.images - 1) / chunk * chunk};
  for (const int64_t images : counts) {
    for (StepArgs& any : steps) {
      const auto wanted = [&](auto& args) {
        set_images(args, images);
        return op_for(kernels, args).scratch_floats(args, pool.count);
      };
      scratch_floats = std::max(scratch_floats, std::visit(wanted, any));
    }
  }
  // Maps begin on cache lines; each step reads one of them and writes the other.
  const int64_t map_floats = (largest * chunk + 15) / 16 * 16;
  const int64_t pooled_floats = (pooled * chunk + 15) / 16 * 16;
  const Workspace workspace(2 * map_floats + pooled_floats + scratch_floats);
  float* spaces[] = {workspace.data(), nullptr};
  spaces[1] = spaces[0] + map_floats;
  float* scratch = spaces[1] + map_floats + pooled_floats;

  const int64_t image_bytes = map.shape.pixels() * map.shape.channels * (map.bytes ? 1 : size_of(map.dtype));
  // Of each result, for one image.
  std::vector<int64_t> result_bytes;
  for (const size_t i : returned) {
    result_bytes.push_back(std::visit([](const auto& args) { return map_bytes(args); }, steps[i]));
  }
  if (!maps) {
    result_bytes.push_back(linear == nullptr ? pooled * int64_t{sizeof(float)}
                                             : linear->out_features * size_of(linear->dtype));
  }
  const auto result = [&](size_t which, int64_t image) -> void* {
    return static_cast<char*>(results[which].mutable_data_ptr()) + image * result_bytes[which];
  };
  with_crew(pool, [&](cpu::Threads threads) {
    for (int64_t first = 0; first < map.shape.images; first += chunk) {
      const int64_t images = std::min(chunk, map.shape.images - first);
      Places places{static_cast<const char*>(map.data) + first * image_bytes, nullptr, nullptr,
                    maps ? nullptr : result(0, first)};
      places.pooled = linear == nullptr ? static_cast<float*>(places.result) : spaces[1] + map_floats;
      int turn = 0;
      size_t next = 0;  // of the maps that are returned
      for (size_t i = 0; i < steps.size(); ++i) {
        StepArgs& any = steps[i];
        const bool is_result = next < returned.size() && returned[next] == i;
        places.map = is_result ? result(next++, first) : spaces[turn];
        threads.ticks = clock.begin(i, threads.count);
        std::visit(
            [&](auto& args) {
              set_images(args, images);
              set_places(args, places);
              op_for(kernels, args).run(args, scratch, threads);
            },
            any);
        clock.end(i);
        places.x = places.map;
        turn ^= 1;
      }
    }
  });
  return results;
}

std::vector<Tensor> run_given(const Tensor& input, const NetworkDescription& description, bool maps) {
  NetworkClock clock;
  Arguments arguments(network_name(maps));
  check_results(arguments, description, maps);
  const Map map = network_input(arguments, input, description);
  return run_steps(clock, input, map, description, network_args(arguments, map, description), maps);
}

// The steps for images of one shape, type and layout, and the states of the tensors to which they refer, read
// before the steps: a change in between is found at the next call.
struct Prepared {
  TensorStates states;
  std::vector<StepArgs> steps;
};

using Key = std::array<int64_t, 7>;

Key key_of(const Map& map) {
  const Shape& shape = map.shape;
  return {shape.images, shape.height, shape.width, shape.channels, static_cast<int64_t>(map.dtype),
          map.planar,   map.bytes};
}

// The same of a network that is held. Where shapes, types or memory of its tensors have changed, they are
// read anew.
std::vector<Tensor> run_held(const Tensor& input, int64_t number, bool maps) {
  NetworkClock clock;
  const std::shared_ptr<const Held> own = held(number);
  const NetworkDescription description{own->tensors(), own->numbers(), own->eps()};
  Arguments images(network_name(maps));
  check_results(images, description, maps);
  const Map map = network_input(images, input, description);
  auto& plans = own->kept<Plans<Key, Prepared>>();
  const Key key = key_of(map);
  std::shared_ptr<const Prepared> prepared = plans.find(key);
  Arguments arguments(network_name(maps));  // owns copies, which plans that are kept must not refer to
  if (prepared == nullptr || !prepared->states.same_memory(own->tensors())) {
    prepared = std::make_shared<const Prepared>(
        Prepared{TensorStates(own->tensors()), network_args(arguments, map, description)});
    if (!arguments.copied()) plans.keep(key, prepared);
  }
  return run_steps(clock, input, map, description, prepared->steps, maps);
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("network", TORCH_BOX(&effkernels::binding::network<effkernels::binding::run_given>));
  library.impl("network_maps", TORCH_BOX(&effkernels::binding::network_maps<effkernels::binding::run_given>));
  library.impl("network_held", TORCH_BOX(&effkernels::binding::network_held<effkernels::binding::run_held>));
  library.impl("network_maps_held",
               TORCH_BOX(&effkernels::binding::network_maps_held<effkernels::binding::run_held>));
}
