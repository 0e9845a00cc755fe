// effkernels_cuda: network, network_maps, the same of a network that is held, and network_bytes. All layers
// in one call.

#include "binding/common/network.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "binding/common/held.h"
#include "binding/common/plans.h"
#include "binding/cuda/call.h"
#include "cuda/depthwise_tensor_core.h"
#include "cuda/network.h"

namespace effkernels::binding {
namespace {

// The plan for images of one shape, dtype and layout, and what its results are.
struct Prepared {
  cuda::NetworkPlan plan;
  std::vector<Shape> maps;  // of the results; empty if they are vectors
  int64_t columns;          // of the vectors
  bool floats;              // means, not of the type of the weights
  // Of all tensors, where a later call may bring other addresses; else the plan has their addresses.
  std::optional<TensorStates> states;
};

int64_t columns_of(const StepArgs& last) {
  if (const auto* linear = std::get_if<LinearArgs>(&last)) return linear->out_features;
  const auto* means = std::get_if<PointwiseConvBnActArgs>(&last);
  return means != nullptr ? means->out_channels : 0;
}

// Calls f(pointer) for each parameter that is there, in the order of the tensors.
template <class F>
void for_each_parameter(std::vector<StepArgs>& steps, const F& f) {
  for (StepArgs& step : steps) {
    std::visit(
        [&](auto& args) {
          cuda::for_each_parameter(args, [&](const void*& pointer) {
            if (pointer != nullptr) f(pointer);
          });
        },
        step);
  }
}

// Replaces the addresses of the steps' parameters by place holders, numbered as the tensors are. False if
// some parameters are copies, or empty.
bool detach(const Arguments& arguments, const std::vector<Tensor>& tensors, std::vector<StepArgs>& steps) {
  size_t count = 0;
  for_each_parameter(steps, [&](const void*&) { ++count; });
  if (arguments.copied() || count != tensors.size()) return false;
  int index = 0;
  for_each_parameter(steps, [&](const void*& pointer) {
    const auto misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(pointer) % 16);
    pointer = cuda::PlacePointer(cuda::Place::kParameter, index++, misaligned);
  });
  return true;
}

// `arguments` keeps copies that the plan may refer to. There are images.
Prepared prepare(Arguments& arguments, const Map& map, const NetworkDescription& network, bool detached) {
  std::vector<StepArgs> steps = network_args(arguments, map, network);
  const std::vector<size_t> returned = returned_steps(network);
  Prepared prepared{
      {}, {}, columns_of(steps.back()), std::holds_alternative<PointwiseConvBnActArgs>(steps.back()), {}};
  for (const size_t i : returned) prepared.maps.push_back(map_of(steps[i]));
  if (detached && detach(arguments, network.tensors, steps)) {
    prepared.states.emplace(network.tensors);
    prepared.plan.keep_tensor_maps();
  }
  if (map.shape.images == 0) return prepared;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (auto* linear = std::get_if<LinearArgs>(&steps[i])) linear->images = map.shape.images;
    std::visit([&](const auto& args) { prepared.plan.add(args); }, steps[i]);
    if (std::binary_search(returned.begin(), returned.end(), i)) prepared.plan.keep();
  }
  prepared.plan.finish();
  return prepared;
}

std::vector<Tensor> run(const Call& call, const Prepared& prepared, const Map& map, const Tensor& first,
                        const void* const* parameters) {
  const int64_t images = map.shape.images;
  std::vector<Tensor> results;
  for (const Shape& shape : prepared.maps) results.push_back(empty_map(first, shape));
  if (results.empty()) {
    results.push_back(prepared.floats ? empty_floats(first, images, prepared.columns)
                                      : empty_rows(first, images, prepared.columns));
  }
  std::vector<void*> addresses;
  for (Tensor& result : results) addresses.push_back(result.mutable_data_ptr());
  if (images > 0) call.run(prepared.plan, map.data, addresses.data(), parameters);
  return results;
}

std::vector<Tensor> run_given(const Tensor& input, const NetworkDescription& network, bool maps) {
  Call call(network_name(maps), input, network.tensors);
  check_results(call.arguments, network, maps);
  const Map map = network_input(call.arguments, input, network);
  const Prepared prepared = prepare(call.arguments, map, network, false);
  return run(call, prepared, map, network.tensors.front(), nullptr);
}

using Key = std::array<int64_t, 10>;

Key key_of(const Tensor& input, const Map& map) {
  const Shape& shape = map.shape;
  return {shape.images,
          shape.height,
          shape.width,
          shape.channels,
          static_cast<int64_t>(map.dtype),
          map.planar,
          map.bytes,
          static_cast<int64_t>(reinterpret_cast<uintptr_t>(map.data) % 16),
          input.get_device_index(),
          cuda::channels_apart()};
}

// The same of a network that is held. Addresses are read anew; where shapes, types or strides have changed,
// everything is.
std::vector<Tensor> run_held(const Tensor& input, int64_t number, bool maps) {
  const std::shared_ptr<const Held> own = held(number);
  const std::vector<Tensor>& tensors = own->tensors();
  const NetworkDescription description{tensors, own->numbers(), own->eps()};
  Call call(network_name(maps), input);
  check_results(call.arguments, description, maps);
  Arguments images(network_name(maps), "effkernels_cuda");
  const Map map = network_input(images, input, description);
  auto& plans = own->kept<Plans<Key, Prepared>>();
  const Key key = key_of(input, map);
  // Whether a plan found all tensors as they are; and where they are now.
  std::vector<const void*> addresses;
  const auto still = [&](const std::optional<TensorStates>& states) {
    return states.has_value() && states->same_layouts(tensors, addresses);
  };
  std::shared_ptr<const Prepared> prepared = plans.find(key);
  if (prepared == nullptr || !still(prepared->states)) {
    call.check_beside(tensors);
    prepared = std::make_shared<const Prepared>(prepare(call.arguments, map, description, true));
    if (still(prepared->states)) plans.keep(key, prepared);
  }
  return run(call, *prepared, map, tensors.front(), addresses.data());
}

// Bytes of all that is between the input and the result. The input is read for its shape and type alone.
int64_t network_bytes(const Tensor& input, const std::vector<Tensor>& tensors, const Ints& numbers,
                      const std::vector<double>& eps) {
  Arguments arguments("network_bytes", "effkernels_cuda");
  const NetworkDescription description{tensors, numbers, eps};
  arguments.check(input.dim() == 4, "feature maps must have 4 dimensions, not ", input.dim());
  const auto side = [&](int i) { return static_cast<int>(input.size(i)); };
  const Map map{{input.size(0), side(2), side(3), side(1)},
                arguments.dtype(input.scalar_type() == torch::headeronly::ScalarType::Byte && !tensors.empty()
                                    ? tensors.front()
                                    : input),
                nullptr};
  return prepare(arguments, map, description, false).plan.bytes();
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("network_bytes(Tensor x, Tensor[] tensors, int[] numbers, float[] eps) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("network", TORCH_BOX(&effkernels::binding::network<effkernels::binding::run_given>));
  library.impl("network_held", TORCH_BOX(&effkernels::binding::network_held<effkernels::binding::run_held>));
  library.impl("network_maps", TORCH_BOX(&effkernels::binding::network_maps<effkernels::binding::run_given>));
  library.impl("network_maps_held",
               TORCH_BOX(&effkernels::binding::network_maps_held<effkernels::binding::run_held>));
}

// Plans for the current device, whatever device the tensors are on.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("network_bytes", TORCH_BOX(&effkernels::binding::network_bytes));
}
