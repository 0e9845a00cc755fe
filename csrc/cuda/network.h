#pragma once

// Steps of a network as calls of this folder's launchers, one after the other, with all that they exchange in
// one piece of memory. A plan is made once for a shape; each call brings its own addresses.

#include <memory>
#include <variant>
#include <vector>

#include "args/conv_bn_act.h"
#include "args/depthwise_conv_bn_act.h"
#include "args/expand_depthwise_conv_bn_act.h"
#include "args/linear.h"
#include "args/mbconv.h"
#include "args/pointwise_conv_bn_act.h"
#include "cuda/common/memory_plan.h"
#include "cuda/common/stream.h"
#include "cuda/sums_gate.h"

namespace effkernels::cuda {

// Arguments of launchers, with their workspaces.
struct PointwiseCall {
  PointwiseConvBnActArgs args;
  float* sums;
};
struct DepthwiseCall {
  DepthwiseConvBnActArgs args;
  float* sums;
};
struct ExpandDepthwiseCall {
  ExpandDepthwiseConvBnActArgs args;
  float* sums;
};
struct GateCall {
  SqueezeExciteGateArgs args;
  PartialSums partial;
};
struct LinearCall {
  LinearArgs args;
  void* features;
};
using LauncherCall =
    std::variant<ConvBnActArgs, PointwiseCall, DepthwiseCall, ExpandDepthwiseCall, GateCall, LinearCall>;

// The images that something is for, of those of the whole call.
struct ImageRange {
  int64_t first, count;
};

// Calls f(pointer) for each parameter of a step, in the order of the op's schema.
template <class F>
void for_each_parameter(Norm& norm, const F& f) {
  for (Parameters* p : {&norm.bias, &norm.gamma, &norm.beta, &norm.mean, &norm.variance}) f(p->data);
}
template <class F>
void for_each_parameter(SqueezeExciteGateArgs& a, const F& f) {
  for (Parameters* p : {&a.reduce_weight, &a.reduce_bias, &a.expand_weight, &a.expand_bias}) f(p->data);
}
template <class F>
void for_each_parameter(ConvBnActArgs& a, const F& f) {
  f(a.weight);
  for_each_parameter(a.norm, f);
  f(a.image_mean.data);
  f(a.image_std.data);
}
template <class F>
void for_each_parameter(MbconvArgs& a, const F& f) {
  f(a.expand_weight);
  for_each_parameter(a.expand_norm, f);
  f(a.depthwise_weight);
  for_each_parameter(a.depthwise_norm, f);
  for_each_parameter(a.gate, f);
  f(a.project_weight);
  for_each_parameter(a.project_norm, f);
}
template <class F>
void for_each_parameter(DepthwiseConvBnActArgs& a, const F& f) {
  f(a.weight);
  for_each_parameter(a.norm, f);
}
template <class F>
void for_each_parameter(ExpandDepthwiseConvBnActArgs& a, const F& f) {
  f(a.expand_weight);
  for_each_parameter(a.expand_norm, f);
  for_each_parameter(a.depthwise, f);
}
template <class F>
void for_each_parameter(PointwiseConvBnActArgs& a, const F& f) {
  f(a.weight);
  for_each_parameter(a.norm, f);
}
template <class F>
void for_each_parameter(LinearArgs& a, const F& f) {
  f(a.weight);
  f(a.bias.data);
}

// What the pointers of a plan stand for until a call says where it is. They are no addresses that a process
// has, null only where nothing is there, and aligned as the address will be.
enum class Place : uint8_t { kInput, kResult, kBuffer, kParameter };

class PlacePointer {
 public:
  // Of several buffers or parameters the one with this index. `misaligned`: bytes beyond a multiple of 16.
  constexpr PlacePointer(Place place, int index = 0, int misaligned = 0)
      : bits_(kMark | uint64_t{static_cast<uint8_t>(place)} << 40 | static_cast<uint64_t>(index) << 8 |
              static_cast<uint64_t>(misaligned)) {}
  explicit PlacePointer(const void* pointer) : bits_(reinterpret_cast<uintptr_t>(pointer)) {}

  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(bits_));
  }

  // Whether it is one, and not null or an address.
  bool stands_for_a_place() const { return bits_ >> 48 == kMark >> 48; }
  Place place() const { return static_cast<Place>(bits_ >> 40 & 0xff); }
  int index() const { return static_cast<int>(bits_ >> 8 & 0xffffffff); }

 private:
  static constexpr uint64_t kMark = uint64_t{0xeff5} << 48;
  uint64_t bits_;
};

class TensorMapPool;  // see common/tensor_maps.h

// Addresses of one call.
struct NetworkMemory {
  const void* input;
  void* const* results;           // by the order in which they are made
  char* buffers;                  // NetworkPlan::bytes(), aligned to 16 bytes or more
  const void* const* parameters;  // by index
};

class NetworkPlan {
 public:
  // Adds a step, which reads what the one before has written, the first one the input. Addresses of maps,
  // means and results are not read. Parameters are addresses, or stand for Place::kParameter.
  template <class Args>
  void add(const Args& args) {
    steps_.push_back({args, false});
  }

  // Makes the map that the last step so far writes a result of the call.
  void keep() { steps_.back().kept = true; }

  // After the last step. If no map is kept, what the last one writes is the result. There must be images.
  // Decides for the current device in how many parts blocks run; see common/batch_parts.h.
  void finish();

  // Lets runs leave their tensor maps for later ones: for a plan that runs more than once.
  void keep_tensor_maps();

  int64_t bytes() const { return memory_.bytes; }

  // Launches everything on a stream, a cudaStream_t; returns nullptr, or a message that says what is wrong.
  // Launches may overlap; see Sequence.
  // `records` gets all launches, unless it is null; so does `timer`, which also times them and waits until
  // they have ended.
  const char* run(const NetworkMemory& memory, void* stream, std::vector<LaunchRecord>* records,
                  LaunchTimer* timer = nullptr) const;

 private:
  struct Step {
    // PointwiseConvBnActArgs: its means.
    std::variant<ConvBnActArgs, MbconvArgs, PointwiseConvBnActArgs, PointwiseMapArgs, LinearArgs> args;
    bool kept;  // its map is a result
  };
  // What one image takes there. What is not by image counts as one image.
  struct Buffer {
    int64_t image_bytes;
    ImageRange images;

    int64_t bytes() const { return image_bytes * images.count; }
  };
  struct Planned {
    LauncherCall call;
    ImageRange images;
    LaunchPurpose purpose;
  };
  // What is known while steps become calls.
  struct Planning {
    int64_t most_bytes;              // that a block should take for its maps
    PlacePointer at{Place::kInput};  // what the next step reads
    LaunchPurpose purpose{};         // of the calls that are added
  };

  // Adds the calls of a step.
  void plan(ConvBnActArgs args, Planning& now);
  void plan(const MbconvArgs& args, Planning& now);
  void plan(PointwiseConvBnActArgs args, Planning& now);
  void plan(PointwiseMapArgs args, Planning& now);
  void plan(LinearArgs args, Planning& now);
  // Adds those of a part of a block's images. `x` and `y` are for all images.
  void plan_part(MbconvArgs args, bool in_one, ImageRange images, PlacePointer x, PlacePointer y,
                 LaunchPurpose purpose);
  void call(const LauncherCall& call, ImageRange images, const LaunchPurpose& purpose);

  PlacePointer buffer(int64_t image_bytes, ImageRange images);
  PlacePointer workspace(int64_t bytes) { return buffer(bytes, {0, 1}); }
  const Buffer& result_buffer(size_t which) const {
    return buffers_[static_cast<size_t>(results_[which].index())];
  }
  // Where images from `first` on are in a buffer at `address`.
  static char* at_image(void* address, const Buffer& buffer, int64_t first) {
    return static_cast<char*>(address) + (first - buffer.images.first) * buffer.image_bytes;
  }
  // What a call of a launcher reads and writes, but for parameters and the input.
  std::vector<MemoryRange> memory_of(Planned planned, const NetworkMemory& memory) const;

  std::vector<Step> steps_;  // until it is finished
  int64_t input_image_bytes_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<Planned> calls_;
  MemoryPlan memory_;
  std::shared_ptr<TensorMapPool> tensor_maps_;  // null if they are not kept
  std::vector<PlacePointer> results_;           // the buffers that they would be
};

}  // namespace effkernels::cuda
