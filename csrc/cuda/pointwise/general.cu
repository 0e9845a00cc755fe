// pointwise_conv_bn_act without tensor cores: float32, and elements of 16 bits whose rows are not multiples
// of 16 bytes or not aligned to them.
//
// A block has 64 pixels of one segment and 64 output channels, a thread 4 x 4 of them. Chunks of 16 input
// channels go through shared memory as floats; the next is on its way while one is multiplied. Each chunk is
// summed alone and then added: a sum of 1280 terms is 16 + 80 additions deep, and not 1280.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/pool.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {
namespace {

constexpr int kSide = 64;   // pixels and output channels of a block
constexpr int kFour = 4;    // of them a thread's, and input channels that it reads at once
constexpr int kChunk = 16;  // input channels
constexpr int kLanes = kSide / kFour, kThreads = kLanes * kLanes;
static_assert(kSide * kChunk == kThreads * kFour);
// Rows of shared memory, with a gap: the four rows that a thread writes to lie in different banks.
constexpr int kRow = kSide + kFour;

struct GeneralPlan {
  // Rows of x: of images where means are wanted, else of one segment.
  int64_t segments, rows, tiles;
  int column_blocks;
  bool pixels_together, weights_together, results_together;  // aligned for kFour at once
};

// x, with gates rounded as they would be in memory.
template <class T>
EFFKERNELS_DEVICE float gated(float x, float gate) {
  T rounded;
  narrow(x * gate, rounded);
  return widen(rounded);
}

template <class T>
EFFKERNELS_KERNEL(kThreads, 3)
pointwise_nhwc_general_fwd_kernel(const PointwiseConvBnActArgs a, const GeneralPlan p, float* sums) {
  let_next_launch_begin();
  const int column = static_cast<int>(block_index() % p.column_blocks) * kSide;
  const int64_t part = block_index() / p.column_blocks;
  const int64_t segment = part / p.tiles, tile = (part - segment * p.tiles) * kSide;
  const int64_t first = segment * p.rows + tile;  // row of x and y
  const int rows = static_cast<int>(smaller<int64_t>(kSide, p.rows - tile));
  const int columns = smaller(kSide, a.out_channels - column), channels = a.in.channels;
  float* pixels = reinterpret_cast<float*>(shared_memory());            // [kChunk][kRow]
  float* weights = pixels + kChunk * kRow;                              // [kChunk][kRow]
  Folded* folded = reinterpret_cast<Folded*>(weights + kChunk * kRow);  // [kSide]
  fold_channels(a.norm, column, columns, kSide, folded);

  // What this thread copies: kFour input channels of a pixel, and of an output channel.
  const int copied = thread_index() / (kChunk / kFour), of_chunk = thread_index() % (kChunk / kFour) * kFour;
  const T* pixel = static_cast<const T*>(a.x) + (first + copied) * channels;
  const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(column + copied) * channels;
  const float* gates = nullptr;
  if (a.gate != nullptr && copied < rows) {
    gates = a.gate + (first + copied) / (int64_t{a.in.height} * a.in.width) * channels;
  }
  float next_pixel[kFour], next_weight[kFour];
  const auto fetch = [&](int chunk) {
    const int k = chunk + of_chunk, there = channels - k;
    load(pixel + k, p.pixels_together && copied < rows && there >= kFour, copied < rows ? there : 0,
         next_pixel);
    load(weight + k, p.weights_together && copied < columns && there >= kFour, copied < columns ? there : 0,
         next_weight);
    if (gates != nullptr) {
#pragma unroll
      for (int e = 0; e < kFour; ++e) {
        if (e < there) next_pixel[e] = gated<T>(next_pixel[e], gates[k + e]);
      }
    }
  };
  wait_for_previous_launch();
  fetch(0);

  // This thread's channels and pixels.
  const int lane = thread_index() % kLanes, group = thread_index() / kLanes;
  float results[kFour][kFour] = {};
#pragma unroll 1
  for (int chunk = 0; chunk < channels; chunk += kChunk) {
    barrier();  // all have read the chunk before
#pragma unroll
    for (int e = 0; e < kFour; ++e) {
      pixels[(of_chunk + e) * kRow + copied] = next_pixel[e];
      weights[(of_chunk + e) * kRow + copied] = next_weight[e];
    }
    barrier();
    if (chunk + kChunk < channels) fetch(chunk + kChunk);
    float products[kFour][kFour] = {};
#pragma unroll 8  // all at once would take more registers than there are for 10.0 and 12.0
    for (int k = 0; k < kChunk; ++k) {
      float of_pixels[kFour], factors[kFour];
      load(pixels + k * kRow + group * kFour, true, kFour, of_pixels);
      load(weights + k * kRow + lane * kFour, true, kFour, factors);
#pragma unroll
      for (int i = 0; i < kFour; ++i) {
#pragma unroll
        for (int j = 0; j < kFour; ++j) products[i][j] += of_pixels[i] * factors[j];
      }
    }
#pragma unroll
    for (int i = 0; i < kFour; ++i) {
#pragma unroll
      for (int j = 0; j < kFour; ++j) results[i][j] += products[i][j];
    }
  }

  const int there = columns - lane * kFour;  // channels of this thread: below 1 where there are none
  float total[kFour] = {};
#pragma unroll
  for (int i = 0; i < kFour; ++i) {
    const int row = group * kFour + i;
    if (row >= rows || there <= 0) break;
#pragma unroll
    for (int j = 0; j < kFour; ++j) {
      const Folded norm = folded[lane * kFour + j];
      results[i][j] = results[i][j] * norm.scale + norm.shift;
    }
    activate(a.activation, results[i]);
    const int64_t at = (first + row) * a.out_channels + column + lane * kFour;
    if (a.residual != nullptr) {
      float added[kFour];
      load(static_cast<const T*>(a.residual) + at, p.results_together && there >= kFour, there, added);
#pragma unroll
      for (int j = 0; j < kFour; ++j) results[i][j] += added[j];
    }
#pragma unroll
    for (int j = 0; j < kFour; ++j) total[j] += results[i][j];
    if (a.y != nullptr)
      store(static_cast<T*>(a.y) + at, p.results_together && there >= kFour, there, results[i]);
  }
  if (sums != nullptr) {
    add_groups(total, group, kLanes, lane, kSide, columns, pixels, sums + part * a.out_channels + column);
  }
}

GeneralPlan make_general_plan(const PointwiseConvBnActArgs& a) {
  GeneralPlan p{};
  const int64_t pixels = a.in.pixels();
  p.segments = a.mean != nullptr ? a.in.images : 1;
  p.rows = a.mean != nullptr ? pixels : a.in.images * pixels;
  p.tiles = divide_up<int64_t>(p.rows, kSide);
  p.column_blocks = divide_up(a.out_channels, kSide);
  return p;
}

template <class T>
const char* launch_general(const PointwiseConvBnActArgs& a, float* sums, const Stream& stream) {
  GeneralPlan p = make_general_plan(a);
  p.pixels_together = aligned<T, kFour>(a.x, a.in.channels);
  p.weights_together = aligned<T, kFour>(a.weight, a.in.channels);
  p.results_together =
      aligned<T, kFour>(a.y, a.out_channels) && aligned<T, kFour>(a.residual, a.out_channels);
  const int64_t bytes = 2 * kChunk * kRow * sizeof(float) + kSide * sizeof(Folded);
  static_assert(kLanes * kSide <= kChunk * kRow);  // totals go where pixels were
  const Grid grid{"pointwise_nhwc_general_fwd", p.segments * p.tiles * p.column_blocks, kThreads, bytes};
  return launch(pointwise_nhwc_general_fwd_kernel<T>, grid, stream, a, p, sums);
}

}  // namespace

int64_t general_workspace(const PointwiseConvBnActArgs& a) {
  const GeneralPlan p = make_general_plan(a);
  return p.segments * p.tiles * a.out_channels;
}

const char* run_general(const PointwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  float* sums = a.mean == nullptr ? nullptr : workspace;
  const char* error = with_dtype(a.dtype, [&](auto* type) {
    return launch_general<std::remove_pointer_t<decltype(type)>>(a, sums, stream);
  });
  if (error != nullptr || a.mean == nullptr) return error;
  const auto parts = static_cast<int>(make_general_plan(a).tiles);
  return mean_of_parts(sums, a.in.images, parts, a.out_channels, a.in.pixels(), a.mean, stream);
}

}  // namespace effkernels::cuda::pointwise
