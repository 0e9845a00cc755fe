// squeeze_excite_gate: both products of a matrix with a vector, in one launch. sums_gate.cu does it on tensor
// cores where it can; here are all other shapes and types.

#include "cuda/squeeze_excite_gate.h"

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/pool.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
// Most of the time goes into waiting for L2, so each thread asks for many weights at once: in the first
// product for kTogether neighbouring ones; in the second, whose rows are short, for those of several
// channels, with kLanes lanes on each channel.
constexpr int kTogether = 8, kLanes = 8;
constexpr int kGroups = kThreads / kLanes;
// Sums of a thread: of kSums channels of one image, or of one channel of kSums images.
constexpr int kSums = 4;
template <int kImages>
constexpr int kChannels = kSums / kImages;
// Images of a block where there are enough of them to fill the GPU: they share the weights that are read.
constexpr int kShared = kSums;
inline int64_t many_images() { return blocks_to_fill(); }
// Where there are few images, several blocks share one: each computes all hidden channels, and a chunk of the
// output channels.
constexpr int kMostChunks = 8;

// How one call is cut into blocks.
struct Cut {
  int chunks;    // of output channels: a block takes one, for the same images as the others
  int chunk;     // channels of each, at most
  bool vectors;  // whether kTogether values of `pooled` and of the first weights lie aligned
};

// The sum over `lanes` neighbouring lanes, in each of them. The whole warp comes here.
template <int kCount>
EFFKERNELS_DEVICE void add_lanes(float (&x)[kCount], int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] += shuffle_xor(x[i], mask);
  }
}

// Calls f with the elements of a matrix.
template <class F>
EFFKERNELS_DEVICE void with_elements(const Parameters& p, const F& f) {
  switch (p.dtype) {
    case Dtype::kFloat:
      return f(static_cast<const float*>(p.data));
    case Dtype::kBFloat16:
      return f(static_cast<const BFloat16*>(p.data));
    case Dtype::kHalf:
      break;
  }
  f(static_cast<const Half*>(p.data));
}

// The activated hidden channels of the images: [squeezed][kImages]. A warp takes one at a time.
template <int kImages, class T>
EFFKERNELS_DEVICE void reduce(const SqueezeExciteGateArgs& a, bool vectors, const T* weights,
                              const float* pooled, int images, float* hidden) {
  [[maybe_unused]] constexpr int kUnroll = kChannels<kImages>;
  const int lane = thread_index() % kWarp;
  const T* row = weights + int64_t{thread_index() / kWarp} * a.channels;
  for (int r = thread_index() / kWarp; r < a.squeezed; r += kWarps, row += int64_t{kWarps} * a.channels) {
    float dots[kImages] = {};
#pragma unroll kUnroll
    for (int c = lane * kTogether; c < a.channels; c += kWarp * kTogether) {
      float weight[kTogether];
      load(row + c, vectors, a.channels - c, weight);
#pragma unroll
      for (int i = 0; i < kImages; ++i) {
        if (i >= images) break;
        float mean[kTogether];
        load(pooled + int64_t{i} * a.channels + c, vectors, a.channels - c, mean);
#pragma unroll
        for (int e = 0; e < kTogether; ++e) dots[i] += weight[e] * mean[e];
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
}

// The gates of channels [first, end) of the images.
template <int kImages, class T>
EFFKERNELS_DEVICE void expand(const SqueezeExciteGateArgs& a, const T* weights, const float* hidden,
                              int images, int first, int end, float* gate) {
  constexpr int kHere = kChannels<kImages>;
  const int part = thread_index() % kLanes;
  for (int begin = first; begin < end; begin += kGroups * kHere) {
    const int channel = begin + thread_index() / kLanes;
    float dots[kHere * kImages] = {};
#pragma unroll 2
    for (int r = part; r < a.squeezed; r += kLanes) {
      float weight[kHere];
#pragma unroll
      for (int j = 0; j < kHere; ++j) {
        const int64_t row = smaller(channel + j * kGroups, end - 1);
        weight[j] = widen(weights[row * a.squeezed + r]);
      }
#pragma unroll
      for (int j = 0; j < kHere; ++j) {
#pragma unroll
        for (int i = 0; i < kImages; ++i) dots[j * kImages + i] += weight[j] * hidden[r * kImages + i];
      }
    }
    add_lanes(dots, kLanes);
    if (part != 0) continue;
#pragma unroll
    for (int j = 0; j < kHere; ++j) {
      const int c = channel + j * kGroups;
      if (c >= end) break;
      const float bias = parameter_or(a.expand_bias, c, 0.0f);
#pragma unroll
      for (int i = 0; i < kImages; ++i) {
        if (i < images) gate[int64_t{i} * a.channels + c] = sigmoid(dots[j * kImages + i] + bias);
      }
    }
  }
}

template <int kImages>
EFFKERNELS_KERNEL(kThreads, 2)
squeeze_excite_gate_fwd_kernel(const SqueezeExciteGateArgs a, const Cut cut) {
  let_next_launch_begin();
  wait_for_previous_launch();
  float* hidden = reinterpret_cast<float*>(shared_memory());
  const int64_t image = block_index() / cut.chunks * kImages;
  const int images = static_cast<int>(smaller<int64_t>(kImages, a.images - image));
  const int first = static_cast<int>(block_index() % cut.chunks) * cut.chunk;
  const float* pooled = a.pooled + image * a.channels;
  with_elements(a.reduce_weight, [&](const auto* weights) {
    reduce<kImages>(a, cut.vectors, weights, pooled, images, hidden);
  });
  barrier();
  with_elements(a.expand_weight, [&](const auto* weights) {
    expand<kImages>(a, weights, hidden, images, first, smaller(first + cut.chunk, a.channels),
                    a.gate + image * a.channels);
  });
}

template <int kImages>
const char* launch_gate(const SqueezeExciteGateArgs& a, const Stream& stream) {
  const int64_t groups = divide_up<int64_t>(a.images, kImages);
  // How often a block goes through all of its threads to cover the channels.
  const int rounds = divide_up(a.channels, kGroups * kChannels<kImages>);
  const auto wanted = static_cast<int>(smaller<int64_t>(kMostChunks, blocks_to_fill() / groups));
  const int chunk_rounds = divide_up(rounds, larger(1, smaller(rounds, wanted)));
  Cut cut;
  cut.chunk = chunk_rounds * kGroups * kChannels<kImages>;
  cut.chunks = divide_up(a.channels, cut.chunk);
  cut.vectors = aligned<float, 4>(a.pooled, a.channels) && a.channels % kTogether == 0 &&
                reinterpret_cast<uintptr_t>(a.reduce_weight.data) % 16 == 0;
  const int64_t hidden = int64_t{a.squeezed} * kImages * static_cast<int64_t>(sizeof(float));
  return launch(squeeze_excite_gate_fwd_kernel<kImages>,
                {"squeeze_excite_gate_fwd", groups * cut.chunks, kThreads, hidden}, stream, a, cut);
}

}  // namespace

const char* squeeze_excite_gate(const SqueezeExciteGateArgs& a, const Stream& stream) {
  if (const char* reason = refusal(a)) return reason;
  if (a.images == 0 || a.channels == 0) return nullptr;
  // Only bfloat16: `pooled` may hold values of any size, which float16 cannot represent.
  const char* error = nullptr;
  if (a.reduce_weight.dtype == Dtype::kBFloat16 &&
      try_sums_gate(a, {a.pooled, 1, 1, nullptr}, stream, error)) {
    return error;
  }
  static_assert(int64_t{kMostHidden} * sizeof(float) <= kSharedBytes);
  const bool many = a.images >= many_images() && a.squeezed <= kMostHidden / kShared;
  return many ? launch_gate<kShared>(a, stream) : launch_gate<1>(a, stream);
}

const char* squeeze_excite_gate_of_sums(const SqueezeExciteGateArgs& a, const PartialSums& sums,
                                        const Stream& stream) {
  if (const char* reason = refusal(a)) return reason;
  if (a.images == 0 || a.channels == 0) return nullptr;
  const char* error = nullptr;
  if (try_sums_gate(a, sums, stream, error)) return error;
  error = mean_of_parts(sums.sums, a.images, sums.parts, a.channels, sums.pixels, sums.means, stream);
  return error != nullptr ? error : squeeze_excite_gate(a.with(a.images, sums.means, a.gate), stream);
}

}  // namespace effkernels::cuda
