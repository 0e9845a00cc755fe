// network, mbconv: which launchers a step calls, and where in memory its maps are.

#include "cuda/network.h"

#include <algorithm>

#include "cuda/common/batch_parts.h"
#include "cuda/common/device.cuh"
#include "cuda/common/device_memory.h"
#include "cuda/common/launch_timer.h"
#include "cuda/common/tensor_maps.h"
#include "cuda/conv_bn_act.h"
#include "cuda/depthwise_conv_bn_act.h"
#include "cuda/expand_depthwise_conv_bn_act.h"
#include "cuda/linear.h"
#include "cuda/network_work.h"
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
void for_each_pointer(ExpandDepthwiseCall& c, const F& f) {
  f(c.args.x);
  f(c.args.depthwise.y);
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
const char* run_call(const ExpandDepthwiseCall& call, const Stream& stream) {
  return expand_depthwise_conv_bn_act_sums(call.args, call.sums, stream);
}
const char* run_call(const GateCall& call, const Stream& stream) {
  return squeeze_excite_gate_of_sums(call.args, call.partial, stream);
}
const char* run_call(const LinearCall& call, const Stream& stream) {
  return linear(call.args, call.features, stream);
}

int64_t image_bytes(const Shape& shape, Dtype dtype) {
  return shape.pixels() * shape.channels * size_of(dtype);
}

Shape with_channels(Shape shape, int channels) {
  shape.channels = channels;
  return shape;
}

// The convolutions of a block before its projection; one if nothing is expanded. The result's address is not
// set.
ExpandDepthwiseConvBnActArgs first_two_of(const MbconvArgs& args, const void* x) {
  ExpandDepthwiseConvBnActArgs two{};
  DepthwiseConvBnActArgs& depthwise = two.depthwise;
  depthwise.in = with_channels(args.in, args.expanded);
  depthwise.out = with_channels(args.out, args.expanded);
  depthwise.dtype = args.dtype;
  depthwise.window = args.window;
  depthwise.weight = args.depthwise_weight;
  depthwise.norm = args.depthwise_norm;
  depthwise.activation = args.activation;
  two.in_channels = args.in.channels;
  two.x = x;
  two.expand_weight = args.expand_weight;
  two.expand_norm = args.expand_norm;
  return two;
}

// Partial sums of each image where one kernel computes both; else 0.
int parts_in_one_kernel(const ExpandDepthwiseConvBnActArgs& two) {
  return two.expand_weight == nullptr ? 0 : expand_depthwise_conv_bn_act_parts(two);
}

// `in_one`: expand and depthwise are one kernel, so that there is no expanded map.
BlockWork work_of(const MbconvArgs& args, bool in_one) {
  BlockWork work{};
  work.images = args.in.images;
  work.in = image_bytes(args.in, args.dtype);
  const bool in_two = args.expand_weight != nullptr && !in_one;
  if (in_two) work.expanded = image_bytes(with_channels(args.in, args.expanded), args.dtype);
  work.depthwise = image_bytes(with_channels(args.out, args.expanded), args.dtype);
  work.out = image_bytes(args.out, args.dtype);
  work.residual = args.residual;
  work.launches = 2 + in_two + (args.gate.squeezed > 0);
  return work;
}

}  // namespace

PlacePointer NetworkPlan::buffer(int64_t image_bytes, ImageRange images) {
  buffers_.push_back({image_bytes, images});
  return {Place::kBuffer, static_cast<int>(buffers_.size()) - 1};
}

void NetworkPlan::call(const LauncherCall& call, ImageRange images, const LaunchPurpose& purpose) {
  calls_.push_back({call, images, purpose});
}

void NetworkPlan::plan(ConvBnActArgs args, Planning& now) {
  const ImageRange all{0, args.out.images};
  args.x = now.at;
  now.at = buffer(image_bytes(args.out, args.dtype), all);
  args.y = now.at;
  call(args, all, now.purpose);
}

void NetworkPlan::plan(const MbconvArgs& args, Planning& now) {
  const ImageRange all{0, args.in.images};
  const PlacePointer y = buffer(image_bytes(args.out, args.dtype), all);
  const auto pays = [&](int64_t images) {
    MbconvArgs some = args;
    some.in.images = some.out.images = images;
    return parts_in_one_kernel(first_two_of(some, now.at)) > 0;
  };
  const auto images_of_each = [&](bool in_one) {
    return images_of_a_part(work_of(args, in_one), now.most_bytes, device_memory());
  };
  bool in_one = pays(all.count);
  int64_t images = images_of_each(in_one);
  // In one kernel all parts, or none: so memory is what the rule has reckoned with. The last is the smallest.
  if (in_one && !pays(all.count - (all.count - 1) / images * images)) {
    in_one = false;
    images = images_of_each(in_one);
  }
  LaunchPurpose purpose = now.purpose;
  purpose.parts = static_cast<int>((all.count + images - 1) / images);
  for (; purpose.part <= purpose.parts; ++purpose.part) {
    const int64_t first = (purpose.part - 1) * images;
    plan_part(args, in_one, {first, std::min(images, all.count - first)}, now.at, y, purpose);
  }
  now.at = y;
}

void NetworkPlan::plan_part(MbconvArgs args, bool in_one, ImageRange images, PlacePointer x, PlacePointer y,
                            LaunchPurpose purpose) {
  const auto add = [&](const char* layer, const LauncherCall& own) {
    purpose.layer = layer;
    call(own, images, purpose);
  };
  args.in.images = args.out.images = images.count;
  ExpandDepthwiseConvBnActArgs two = first_two_of(args, x);
  const PlacePointer depthwise_y = buffer(image_bytes(two.depthwise.out, args.dtype), images);
  two.depthwise.y = depthwise_y;
  const int parts_in_one = in_one ? parts_in_one_kernel(two) : 0;
  PlacePointer at = x;
  if (args.expand_weight != nullptr && parts_in_one == 0) {
    at = buffer(image_bytes(two.depthwise.in, args.dtype), images);
    add("expand", PointwiseCall{two.expand(at), nullptr});
  }
  const DepthwiseConvBnActArgs depthwise = two.after(at);
  const auto add_depthwise = [&](float* sums) {
    if (parts_in_one > 0) {
      add("expand+depthwise", ExpandDepthwiseCall{two, sums});
    } else {
      add("depthwise", DepthwiseCall{depthwise, sums});
    }
  };
  float* gate = nullptr;
  if (args.gate.squeezed > 0) {
    // The depthwise kernel's blocks sum what each has computed; the gate's kernel adds these sums.
    const int parts = parts_in_one > 0 ? parts_in_one : depthwise_conv_bn_act_parts(depthwise);
    const int64_t floats = args.expanded * kFloatBytes;
    const PlacePointer sums = buffer(floats * parts, images);
    const PlacePointer means = buffer(floats, images);
    gate = buffer(floats, images);
    add_depthwise(sums);
    add("squeeze_excite", GateCall{args.gate.with(images.count, nullptr, gate),
                                   PartialSums{sums, parts, args.out.pixels(), means}});
  } else {
    add_depthwise(nullptr);
  }

  PointwiseConvBnActArgs project{};
  project.in = depthwise.out;
  project.out_channels = args.out.channels;
  project.dtype = args.dtype;
  project.x = depthwise_y;
  project.weight = args.project_weight;
  project.norm = args.project_norm;
  project.gate = gate;
  if (args.residual) project.residual = x;
  project.activation = Activation::kIdentity;
  project.y = y;
  add("project", PointwiseCall{project, nullptr});
}

void NetworkPlan::plan(PointwiseConvBnActArgs args, Planning& now) {
  const ImageRange all{0, args.in.images};
  args.x = now.at;
  args.y = nullptr;
  now.at = buffer(args.out_channels * kFloatBytes, all);
  args.mean = now.at;
  const int64_t floats = pointwise_conv_bn_act_workspace(args);
  PointwiseCall own{args, nullptr};
  if (floats > 0) own.sums = workspace(floats * kFloatBytes);
  call(own, all, now.purpose);
}

void NetworkPlan::plan(PointwiseMapArgs args, Planning& now) {
  const ImageRange all{0, args.in.images};
  args.x = now.at;
  args.mean = nullptr;
  now.at = buffer(image_bytes(with_channels(args.in, args.out_channels), args.dtype), all);
  args.y = now.at;
  call(PointwiseCall{args, nullptr}, all, now.purpose);
}

void NetworkPlan::plan(LinearArgs args, Planning& now) {
  const ImageRange all{0, args.images};
  args.x = now.at;
  now.at = buffer(static_cast<int64_t>(args.out_features) * size_of(args.dtype), all);
  args.y = now.at;
  LinearCall own{args, nullptr};
  const int64_t bytes = linear_workspace(args);
  if (bytes > 0) own.features = workspace(bytes);
  call(own, all, now.purpose);
}

void NetworkPlan::finish() {
  std::vector<BlockWork> blocks;
  for (const Step& step : steps_) {
    if (const auto* block = std::get_if<MbconvArgs>(&step.args)) blocks.push_back(work_of(*block, false));
  }
  Planning now{bytes_to_stay_within(blocks)};
  if (const auto* first = std::get_if<MbconvArgs>(&steps_.front().args)) {
    input_image_bytes_ = image_bytes(first->in, first->dtype);
  }
  for (const Step& step : steps_) {
    std::visit([&](const auto& args) { plan(args, now); }, step.args);
    if (step.kept) results_.push_back(now.at);
    ++now.purpose.step;
  }
  if (results_.empty()) results_.push_back(now.at);
  steps_.clear();
  // The number of the result that a pointer stands for; the number of results if it stands for none.
  const auto result_of = [this](const void* pointer) {
    const auto is_it = [pointer](const PlacePointer& result) {
      const void* stands_for = result;
      return stands_for == pointer;
    };
    return static_cast<int>(std::find_if(results_.begin(), results_.end(), is_it) - results_.begin());
  };
  std::vector<BufferUse> uses;
  for (const Buffer& buffer : buffers_) {
    uses.push_back({buffer.bytes(), static_cast<int>(calls_.size()), -1});
  }
  for (int i = 0; i < static_cast<int>(calls_.size()); ++i) {
    for_each_pointer(calls_[static_cast<size_t>(i)].call, [&](auto& pointer) {
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

std::vector<MemoryRange> NetworkPlan::memory_of(Planned planned, const NetworkMemory& memory) const {
  std::vector<MemoryRange> ranges;
  const auto add = [&](void* address, const Buffer& buffer) {
    const int64_t images = std::min(planned.images.count, buffer.images.count);
    ranges.push_back({at_image(address, buffer, planned.images.first), images * buffer.image_bytes});
  };
  for_each_pointer(planned.call, [&](auto& pointer) {
    const PlacePointer found(pointer);
    if (!found.stands_for_a_place()) return;
    const auto i = static_cast<size_t>(found.index());
    if (found.place() == Place::kResult) add(memory.results[i], result_buffer(i));
    if (found.place() == Place::kBuffer) add(memory.buffers + memory_.offsets[i], buffers_[i]);
  });
  return ranges;
}

const char* NetworkPlan::run(const NetworkMemory& memory, void* handle, std::vector<LaunchRecord>* records,
                             LaunchTimer* timer) const {
  std::unique_ptr<TensorMaps> maps;
  if (tensor_maps_ != nullptr) {
    maps = tensor_maps_->take();
    maps->begin();
  }
  const bool apart = timer != nullptr && timer->launches_apart();
  const bool noted = records != nullptr || timer != nullptr;
  std::vector<LaunchRecord> launches;
  Sequence sequence(!apart && dependent_launches(), noted ? &launches : nullptr, maps.get(), timer);
  const Stream stream(handle, &sequence);
  if constexpr (kWatchesMemory) {
    std::vector<MemoryRange> all{{memory.buffers, bytes()}};
    for (size_t i = 0; i < results_.size(); ++i) {
      all.push_back({memory.results[i], result_buffer(i).bytes()});
    }
    watch_memory(all.data(), static_cast<int>(all.size()));
  }
  const auto address_of = [&](const PlacePointer& place, int64_t first) -> const void* {
    const auto i = static_cast<size_t>(place.index());
    switch (place.place()) {
      case Place::kInput:
        return static_cast<const char*>(memory.input) + first * input_image_bytes_;
      case Place::kResult:
        return at_image(memory.results[i], result_buffer(i), first);
      case Place::kBuffer:
        return at_image(memory.buffers + memory_.offsets[i], buffers_[i], first);
      case Place::kParameter:
        return memory.parameters[i];
    }
    return nullptr;
  };
  const char* error = timer == nullptr ? nullptr : timer->begin(handle, 2 * calls_.size());
  for (Planned planned : calls_) {
    if (error != nullptr) break;
    if constexpr (kWatchesMemory) {
      const std::vector<MemoryRange> own = memory_of(planned, memory);
      allow_memory(own.data(), static_cast<int>(own.size()));
    }
    for_each_pointer(planned.call, [&](auto& pointer) {
      const PlacePointer found(pointer);
      if (!found.stands_for_a_place()) return;
      using T = std::remove_pointer_t<std::remove_reference_t<decltype(pointer)>>;
      // No launcher writes to the input or to parameters.
      pointer = static_cast<T*>(const_cast<void*>(address_of(found, planned.images.first)));
    });
    sequence.set_purpose(planned.purpose);
    const size_t first = launches.size();
    error = std::visit([&](const auto& own) { return run_call(own, stream); }, planned.call);
    for (size_t i = first; i < launches.size(); ++i) {
      launches[i].work = work_of_launch(planned.call, i - first, launches.size() - first);
    }
  }
  watch_memory(nullptr, 0);
  if (maps != nullptr) tensor_maps_->leave(std::move(maps));
  if (records != nullptr) records->insert(records->end(), launches.begin(), launches.end());
  if (timer != nullptr) {
    const char* late = timer->end(std::move(launches));
    if (error == nullptr) error = late;
  }
  return error;
}

}  // namespace effkernels::cuda
