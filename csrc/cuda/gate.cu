// squeeze_excite_gate: both products of a matrix with a vector, in one launch.

#include "cuda/elements.cuh"
#include "cuda/fold.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
// Lanes that share a channel of the second product: its rows are short, and follow one another.
constexpr int kLanes = 8;
// Images of a block. Few of them get one each: more blocks end sooner than the weights, which lie in L2, are
// read again. From 64 on they share, or the weights would cost more than the rest.
constexpr int kShared = 4;
constexpr int64_t kManyImages = 64;

// The sum over `lanes` neighbouring lanes, in each of them. The whole warp comes here.
template <int kImages>
EFFKERNELS_DEVICE void add_lanes(float (&x)[kImages], int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
#pragma unroll
    for (int i = 0; i < kImages; ++i) x[i] += shuffle_xor(x[i], mask);
  }
}

template <int kImages>
EFFKERNELS_KERNEL(kThreads, 2)
gate_kernel(const GateArgs a) {
  float* hidden = reinterpret_cast<float*>(shared_memory());  // [squeezed][kImages]
  const int64_t image = block_index() * kImages;
  const int images = static_cast<int>(smaller<int64_t>(kImages, a.images - image));
  const float* pooled = a.pooled + image * a.channels;

  const int lane = thread_index() % kWarp;
  for (int r = thread_index() / kWarp; r < a.squeezed; r += kWarps) {
    float dots[kImages] = {};
#pragma unroll 4
    for (int c = lane; c < a.channels; c += kWarp) {
      const float weight = parameter(a.reduce_weight, int64_t{r} * a.channels + c);
#pragma unroll
      for (int i = 0; i < kImages; ++i) {
        if (i < images) dots[i] += weight * pooled[int64_t{i} * a.channels + c];
      }
    }
    add_lanes(dots, kWarp);
    if (lane == 0) {
      const float bias = parameter_or(a.reduce_bias, r, 0.0f);
#pragma unroll
      for (int i = 0; i < kImages; ++i) dots[i] += bias;
      activate(a.activation, dots);
#pragma unroll
      for (int i = 0; i < kImages; ++i) hidden[r * kImages + i] = dots[i];
    }
  }
  barrier();

  const int part = thread_index() % kLanes;
  for (int first = 0; first < a.channels; first += kThreads / kLanes) {
    const int channel = first + thread_index() / kLanes;
    float dots[kImages] = {};
    if (channel < a.channels) {
#pragma unroll 4
      for (int r = part; r < a.squeezed; r += kLanes) {
        const float weight = parameter(a.expand_weight, int64_t{channel} * a.squeezed + r);
#pragma unroll
        for (int i = 0; i < kImages; ++i) dots[i] += weight * hidden[r * kImages + i];
      }
    }
    add_lanes(dots, kLanes);
    if (part == 0 && channel < a.channels) {
      const float bias = parameter_or(a.expand_bias, channel, 0.0f);
#pragma unroll
      for (int i = 0; i < kImages; ++i) {
        if (i < images) a.gate[(image + i) * a.channels + channel] = sigmoid(dots[i] + bias);
      }
    }
  }
}

template <int kImages>
const char* launch_gate(const GateArgs& a, void* stream) {
  const int64_t hidden = int64_t{a.squeezed} * kImages * static_cast<int64_t>(sizeof(float));
  return launch(gate_kernel<kImages>, {divide_up<int64_t>(a.images, kImages), kThreads, hidden}, stream, a);
}

}  // namespace

const char* gate(const GateArgs& a, void* stream) {
  if (a.images == 0) return nullptr;
  static_assert(int64_t{kMostHidden} * sizeof(float) <= kSharedBytes);
  const bool many = a.images >= kManyImages && a.squeezed <= kMostHidden / kShared;
  return many ? launch_gate<kShared>(a, stream) : launch_gate<1>(a, stream);
}

}  // namespace effkernels::cuda
