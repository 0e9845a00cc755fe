// network, mbconv: which launchers a step calls, and where in memory its maps are.

#include "cuda/network.h"

#include <algorithm>

#include "cuda/common/device.cuh"
#include "cuda/common/tensor_maps.h"
#include "cuda/conv_bn_act.h"
#include "cuda/depthwise_conv_bn_act.h"
#include "cuda/linear.h"
#include "cuda/pointwise_conv_bn_act.h"
#include "cuda/squeeze_excite_gate.h"

namespace effkernels::cuda {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

// Calls f(pointer) for each pointer of a call.
template <class F>
void for_each_pointer(ConvBnActArgs& a, const F& f) {
  f(a.x);
  f(a.y);
  for_each_parameter(a, f);
}
template <class F>
void for_each_pointer(PointwiseCall& c, const F& f) {
  f(c.args.x);
  f(c.args.gate);
  f(c.args.residual);
  f(c.args.y);
  f(c.args.mean);
  f(c.sums);
  for_each_parameter(c.args, f);
}
template <class F>
void for_each_pointer(DepthwiseCall& c, const F& f) {
  f(c.args.x);
  f(c.args.y);
  f(c.sums);
  for_each_parameter(c.args, f);
}
template <class F>
void for_each_pointer(GateCall& c, const F& f) {
  f(c.partial.sums);
  f(c.partial.means);
  f(c.args.gate);
  for_each_parameter(c.args, f);
}
template <class F>
void for_each_pointer(LinearCall& c, const F& f) {
  f(c.args.x);
  f(c.features);
  f(c.args.y);
  for_each_parameter(c.args, f);
}
template <class F>
void for_each_pointer(LauncherCall& call, const F& f) {
  std::visit([&](auto& own) { for_each_pointer(own, f); }, call);
}

const char* run_call(const ConvBnActArgs& args, const Stream& stream) { return conv_bn_act(args, stream); }
const char* run_call(const PointwiseCall& call, const Stream& stream) {
  return pointwise_conv_bn_act(call.args, call.sums, stream);
}
const char* run_call(const DepthwiseCall& call, const Stream& stream) {
  return depthwise_conv_bn_act_sums(call.args, call.sums, stream);
}
const char* run_call(const GateCall& call, const Stream& stream) {
  return squeeze_excite_gate_of_sums(call.args, call.partial, stream);
}
const char* run_call(const LinearCall& call, const Stream& stream) {
  return linear(call.args, call.features, stream);
}

int64_t map_bytes(const Shape& shape, Dtype dtype) {
  return shape.images * shape.pixels() * shape.channels * size_of(dtype);
}

}  // namespace

PlacePointer NetworkPlan::buffer(int64_t bytes) {
  buffer_bytes_.push_back(bytes);
  return {Place::kBuffer, static_cast<int>(buffer_bytes_.size()) - 1};
}

void NetworkPlan::add(ConvBnActArgs args) {
  args.x = at_;
  at_ = buffer(map_bytes(args.out, args.dtype));
  args.y = at_;
  calls_.emplace_back(args);
}

void NetworkPlan::add(const MbconvArgs& args) {
  const PlacePointer x = at_;
  Shape wide = args.in;
  wide.channels = args.expanded;
  if (args.expand_weight != nullptr) {
    PointwiseConvBnActArgs expand{};
    expand.in = args.in;
    expand.out_channels = args.expanded;
    expand.dtype = args.dtype;
    expand.x = x;
    expand.weight = args.expand_weight;
    expand.norm = args.expand_norm;
    expand.activation = args.activation;
    at_ = buffer(map_bytes(wide, args.dtype));
    expand.y = at_;
    calls_.emplace_back(PointwiseCall{expand, nullptr});
  }

  DepthwiseConvBnActArgs depthwise{};
  depthwise.in = wide;
  depthwise.out = args.out;
  depthwise.out.channels = args.expanded;
  depthwise.dtype = args.dtype;
  depthwise.window = args.window;
  depthwise.x = at_;
  depthwise.weight = args.depthwise_weight;
  depthwise.norm = args.depthwise_norm;
  depthwise.activation = args.activation;
  at_ = buffer(map_bytes(depthwise.out, args.dtype));
  depthwise.y = at_;
  float* gate = nullptr;
  if (args.gate.squeezed > 0) {
    // The depthwise kernel's blocks sum what each has computed; the gate's kernel adds these sums.
    const int64_t values = args.out.images * args.expanded;
    const int parts = depthwise_conv_bn_act_parts(depthwise);
    const PlacePointer sums = buffer(values * parts * kFloatBytes);
    const PlacePointer means = buffer(values * kFloatBytes);
    gate = buffer(values * kFloatBytes);
    calls_.emplace_back(DepthwiseCall{depthwise, sums});
    calls_.emplace_back(GateCall{args.gate.with(args.out.images, nullptr, gate),
                                 PartialSums{sums, parts, args.out.pixels(), means}});
  } else {
    calls_.emplace_back(DepthwiseCall{depthwise, nullptr});
  }

  PointwiseConvBnActArgs project{};
  project.in = depthwise.out;
  project.out_channels = args.out.channels;
  project.dtype = args.dtype;
  project.x = at_;
  project.weight = args.project_weight;
  project.norm = args.project_norm;
  project.gate = gate;
  if (args.residual) project.residual = x;
  project.activation = Activation::kIdentity;
  at_ = buffer(map_bytes(args.out, args.dtype));
  project.y = at_;
  calls_.emplace_back(PointwiseCall{project, nullptr});
}

void NetworkPlan::add(PointwiseConvBnActArgs args) {
  args.x = at_;
  args.y = nullptr;
  at_ = buffer(args.in.images * args.out_channels * kFloatBytes);
  args.mean = at_;
  const int64_t floats = pointwise_conv_bn_act_workspace(args);
  PointwiseCall call{args, nullptr};
  if (floats > 0) call.sums = buffer(floats * kFloatBytes);
  calls_.emplace_back(call);
}

void NetworkPlan::add(PointwiseMapArgs args) {
  args.x = at_;
  args.mean = nullptr;
  at_ = buffer(args.in.images * args.in.pixels() * args.out_channels * size_of(args.dtype));
  args.y = at_;
  calls_.emplace_back(PointwiseCall{args, nullptr});
}

void NetworkPlan::add(LinearArgs args) {
  args.x = at_;
  at_ = buffer(args.images * args.out_features * size_of(args.dtype));
  args.y = at_;
  LinearCall call{args, nullptr};
  const int64_t bytes = linear_workspace(args);
  if (bytes > 0) call.features = buffer(bytes);
  calls_.emplace_back(call);
}

void NetworkPlan::finish() {
  if (results_.empty()) keep();
  // The number of the result that a pointer stands for; of how many there are where it is none.
  const auto result_of = [this](const void* pointer) {
    const auto is_it = [pointer](const PlacePointer& result) {
      const void* stands_for = result;
      return stands_for == pointer;
    };
    return static_cast<int>(std::find_if(results_.begin(), results_.end(), is_it) - results_.begin());
  };
  std::vector<BufferUse> uses;
  for (const int64_t size : buffer_bytes_) uses.push_back({size, static_cast<int>(calls_.size()), -1});
  for (int i = 0; i < static_cast<int>(calls_.size()); ++i) {
    for_each_pointer(calls_[static_cast<size_t>(i)], [&](auto& pointer) {
      const int result = result_of(pointer);
      if (result < static_cast<int>(results_.size())) pointer = PlacePointer(Place::kResult, result);
      const PlacePointer found(pointer);
      if (!found.stands_for_a_place() || found.place() != Place::kBuffer) return;
      BufferUse& use = uses[static_cast<size_t>(found.index())];
      use.first = std::min(use.first, i);
      use.last = std::max(use.last, i);
    });
  }
  for (BufferUse& use : uses) {
    if (use.last < 0) use.bytes = 0;  // a result, which is not among them
  }
  memory_ = plan_memory(uses);
}

void NetworkPlan::keep_tensor_maps() { tensor_maps_ = std::make_shared<TensorMapPool>(); }

std::vector<MemoryRange> NetworkPlan::memory_of(LauncherCall call, const NetworkMemory& memory) const {
  std::vector<MemoryRange> ranges;
  for_each_pointer(call, [&](auto& pointer) {
    const PlacePointer found(pointer);
    if (!found.stands_for_a_place()) return;
    const auto i = static_cast<size_t>(found.index());
    if (found.place() == Place::kResult) ranges.push_back({memory.results[i], result_bytes(i)});
    if (found.place() == Place::kBuffer) {
      ranges.push_back({memory.buffers + memory_.offsets[i], buffer_bytes_[i]});
    }
  });
  return ranges;
}

const char* NetworkPlan::run(const NetworkMemory& memory, void* handle,
                             std::vector<LaunchRecord>* records) const {
  std::unique_ptr<TensorMaps> maps;
  if (tensor_maps_ != nullptr) {
    maps = tensor_maps_->take();
    maps->begin();
  }
  Sequence sequence(dependent_launches(), records, maps.get());
  const Stream stream(handle, &sequence);
  if constexpr (kWatchesMemory) {
    std::vector<MemoryRange> all{{memory.buffers, bytes()}};
    for (size_t i = 0; i < results_.size(); ++i) all.push_back({memory.results[i], result_bytes(i)});
    watch_memory(all.data(), static_cast<int>(all.size()));
  }
  const char* error = nullptr;
  const auto resolve = [&](auto& pointer) {
    const PlacePointer found(pointer);
    if (!found.stands_for_a_place()) return;
    using T = std::remove_pointer_t<std::remove_reference_t<decltype(pointer)>>;
    // No launcher writes to the input or to parameters.
    const void* address = nullptr;
    switch (found.place()) {
      case Place::kInput:
        address = memory.input;
        break;
      case Place::kResult:
        address = memory.results[found.index()];
        break;
      case Place::kBuffer:
        address = memory.buffers + memory_.offsets[static_cast<size_t>(found.index())];
        break;
      case Place::kParameter:
        address = memory.parameters[found.index()];
        break;
    }
    pointer = static_cast<T*>(const_cast<void*>(address));
  };
  for (LauncherCall call : calls_) {
    if constexpr (kWatchesMemory) {
      const std::vector<MemoryRange> own = memory_of(call, memory);
      allow_memory(own.data(), static_cast<int>(own.size()));
    }
    for_each_pointer(call, resolve);
    error = std::visit([&](const auto& own) { return run_call(own, stream); }, call);
    if (error != nullptr) break;
  }
  watch_memory(nullptr, 0);
  if (maps != nullptr) tensor_maps_->leave(std::move(maps));
  return error;
}

}  // namespace effkernels::cuda
