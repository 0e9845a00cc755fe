// pointwise_conv_bn_act on tensor cores for few pixels, as of one image: a block has 16 pixels and 8 or 16
// output channels, and its warps share the input channels. On an H100 this takes 2.5 to 3.6 us for the
// projections of B0, and splitting over clusters of blocks took 1 us more.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {
namespace {

constexpr int kPixels = 16;
constexpr int kEight = 8;      // output channels of a product
constexpr int kChannels = 32;  // input channels of a step: 8 neighbours for each of 4 lanes, in two products
constexpr int kShares = 15;    // warps that multiply, at most
// Steps whose loads are on their way at the same time: so many as registers hold.
EFFKERNELS_HOST_DEVICE int together(int eights, bool gated) { return eights > 1 && gated ? 2 : 3; }
constexpr int kThreads = (kShares + 1) * kWarp;

using Words = Elements<uint32_t, 4>;

// Eight elements, or zeros.
template <class T>
EFFKERNELS_DEVICE Words load_eight(const T* p, bool valid) {
  return valid ? *reinterpret_cast<const Words*>(p) : Words{};
}

template <class T>
EFFKERNELS_DEVICE void multiply_by_gates(Words& pixel, const float (&gates)[kEight]) {
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    pixel.at[w] =
        narrow_pair<T>(low_of<T>(pixel.at[w]) * gates[2 * w], high_of<T>(pixel.at[w]) * gates[2 * w + 1]);
  }
}

// Two neighbouring results of a block.
struct Result {
  int64_t pixel;
  int channel;  // of the block's
  int part;     // where a share's sums are
  bool there = false;
};

// One more warp than those that multiply folds BatchNorm in the meantime.
template <class T, int kEights, bool kGated>
EFFKERNELS_KERNEL(kThreads, 1)
pointwise_few_nhwc_fwd_kernel(const PointwiseConvBnActArgs a, int64_t pixels, int column_blocks) {
  let_next_launch_begin();
  const int lane = thread_index() % kWarp, quad = lane % 4;
  const int share = thread_index() / kWarp, shares = block_threads() / kWarp - 1;
  const int channels = a.in.channels,
            column = static_cast<int>(block_index() % column_blocks) * kEights * kEight;
  const int64_t first = block_index() / column_blocks * kPixels;
  Folded* folded = reinterpret_cast<Folded*>(shared_memory());         // [kEights][kEight]
  float* parts = reinterpret_cast<float*>(folded + kEights * kEight);  // [shares][kEights][kWarp][4]
  const T* x = static_cast<const T*>(a.x);
  const T* weight = static_cast<const T*>(a.weight);

  const auto result_of = [&](int i) {
    const int lane_of = i / 2 % kWarp, half = i % 2;
    Result r{first + lane_of / 4 + half * 8, i / (kWarp * 2) * kEight + lane_of % 4 * 2,
             i / 2 * 4 + half * 2};
    r.there = i < kEights * kWarp * 2 && r.pixel < pixels && column + r.channel < a.out_channels;
    return r;
  };
  // What is added to this thread's first result is on its way while the sums are made.
  const Result own = result_of(thread_index());
  uint32_t own_added = 0;
  const auto load_added = [&](const Result& r) {
    return *reinterpret_cast<const uint32_t*>(static_cast<const T*>(a.residual) + r.pixel * a.out_channels +
                                              column + r.channel);
  };
  const auto load_own_added = [&] {
    if (a.residual != nullptr && own.there) own_added = load_added(own);
  };

  if (share == shares) {
    if (lane < kEights * kEight) {
      folded[lane] = column + lane < a.out_channels ? fold(a.norm, column + lane) : Folded{};
    }
    wait_for_previous_launch();
    load_own_added();
  } else {
    const int steps = divide_up(channels, kChannels);
    const int begin = share * steps / shares, end = (share + 1) * steps / shares;
    // Both operands of a product take their terms from the same 8 channels of a lane, whatever their order.
    const int64_t row[2] = {first + lane / 4, first + lane / 4 + 8};
    const int64_t of_image = int64_t{a.in.height} * a.in.width;
    const float* gates[2] = {};
    if constexpr (kGated) {
#pragma unroll
      for (int h = 0; h < 2; ++h) gates[h] = a.gate + smaller(row[h], pixels - 1) / of_image * channels;
    }
    constexpr int kLoads = together(kEights, kGated);
    float sums[kEights][4] = {};
    Words factors[kLoads][kEights];
    const auto load_factors = [&](int step) {
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        const int k = (step + u) * kChannels + quad * kEight;
        const bool valid = step + u < end && k < channels;
#pragma unroll
        for (int n = 0; n < kEights; ++n) {
          const int named = column + n * kEight + lane / 4;
          factors[u][n] = load_eight(weight + static_cast<int64_t>(named) * channels + k,
                                     valid && named < a.out_channels);
        }
      }
    };
    // The first weights are on their way while the launch before ends.
    load_factors(begin);
    wait_for_previous_launch();
    load_own_added();
    for (int step = begin; step < end; step += kLoads) {
      Words pixel[kLoads][2];
      float gate[kLoads][2][kEight];
      if (step > begin) load_factors(step);
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        const int k = (step + u) * kChannels + quad * kEight;
        const bool valid = step + u < end && k < channels;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          pixel[u][h] = load_eight(x + row[h] * channels + k, valid && row[h] < pixels);
          if constexpr (kGated) {
            float low[4] = {}, high[4] = {};
            if (valid) {
              load(gates[h] + k, true, 4, low);
              load(gates[h] + k + 4, true, 4, high);
            }
#pragma unroll
            for (int e = 0; e < kEight; ++e) gate[u][h][e] = e < 4 ? low[e] : high[e - 4];
          }
        }
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        if constexpr (kGated) {
#pragma unroll
          for (int h = 0; h < 2; ++h) multiply_by_gates<T>(pixel[u][h], gate[u][h]);
        }
#pragma unroll
        for (int half = 0; half < 4; half += 2) {
          const uint32_t terms[4] = {pixel[u][0].at[half], pixel[u][1].at[half], pixel[u][0].at[half + 1],
                                     pixel[u][1].at[half + 1]};
#pragma unroll
          for (int n = 0; n < kEights; ++n) {
            multiply_add<T>(terms, factors[u][n].at[half], factors[u][n].at[half + 1], sums[n]);
          }
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kEights; ++n)
      store(parts + ((share * kEights + n) * kWarp + lane) * 4, true, 4, sums[n]);
  }
  barrier();

  for (int i = thread_index(); i < kEights * kWarp * 2; i += block_threads()) {
    const Result r = result_of(i);
    if (!r.there) continue;
    float results[2] = {};
    // The shares are added in their order.
    for (int s = 0; s < shares; ++s) {
      float part[2];
      load(parts + s * kEights * kWarp * 4 + r.part, true, 2, part);
#pragma unroll
      for (int e = 0; e < 2; ++e) results[e] += part[e];
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      results[e] = results[e] * folded[r.channel + e].scale + folded[r.channel + e].shift;
    }
    activate(a.activation, results);
    if (a.residual != nullptr) {
      const uint32_t added = i == thread_index() ? own_added : load_added(r);
      results[0] += low_of<T>(added);
      results[1] += high_of<T>(added);
    }
    store(static_cast<T*>(a.y) + r.pixel * a.out_channels + column + r.channel, true, 2, results);
  }
}

// How a call is cut into blocks.
struct FewPlan {
  int eights;  // products' worth of output channels of a block
  int shares;  // warps that multiply
  int column_blocks;
  int64_t blocks;

  int threads() const { return (shares + 1) * kWarp; }
};

FewPlan make_few_plan(const PointwiseConvBnActArgs& a) {
  const int64_t tiles = divide_up<int64_t>(a.in.images * a.in.pixels(), kPixels);
  const auto columns = [&](int eights) { return divide_up(a.out_channels, eights * kEight); };
  FewPlan p;
  // Twice the channels read pixels half as often, but must leave enough blocks.
  p.eights = tiles * columns(2) >= blocks_to_fill() / 2 ? 2 : 1;
  p.column_blocks = columns(p.eights);
  p.blocks = tiles * p.column_blocks;
  // As few warps as do with one round of loads, but 7 where there is something for each: on an H100, 1152
  // channels take 4.3 us with 8 warps and 2.9 with 16.
  const int steps = divide_up(a.in.channels, kChannels);
  p.shares =
      smaller(kShares, larger(smaller(steps, 7), divide_up(steps, together(p.eights, a.gate != nullptr))));
  return p;
}

template <class T, int kEights, bool kGated>
const char* launch_few(const PointwiseConvBnActArgs& a, const FewPlan& p, const Stream& stream) {
  const Grid grid{"pointwise_few_nhwc_fwd", p.blocks, p.threads(),
                  kEights * (kEight * static_cast<int64_t>(sizeof(Folded)) + p.shares * kWarp * 16)};
  return launch(pointwise_few_nhwc_fwd_kernel<T, kEights, kGated>, grid, stream, a,
                a.in.images * a.in.pixels(), p.column_blocks);
}

template <class T>
const char* launch_few(const PointwiseConvBnActArgs& a, const Stream& stream) {
  const FewPlan p = make_few_plan(a);
  if (a.gate != nullptr) {
    return p.eights == 2 ? launch_few<T, 2, true>(a, p, stream) : launch_few<T, 1, true>(a, p, stream);
  }
  return p.eights == 2 ? launch_few<T, 2, false>(a, p, stream) : launch_few<T, 1, false>(a, p, stream);
}

// Estimates, in microseconds on an H100. Each of these blocks reads all channels of its pixels and all
// weights of its own channels, at 4.2 MB a microsecond at best: 1152 > 320 channels take 2.3 more where 160
// blocks of 16 warps are launched, which do not run at a time, in place of 80.
double few_pixels_time(const PointwiseConvBnActArgs& a, const FewPlan& p) {
  const int64_t rows = kPixels + p.eights * kEight;
  return static_cast<double>(p.blocks * rows * a.in.channels * size_of(a.dtype)) / 4.2e6;
}

// Tiles read them less often, but one after the other: 98 tiles of 64 pixels take 9.2 for 672 > 192 channels
// and 12.7 for 1152 > 192, and fewer take no longer.
double tiles_time(const PointwiseConvBnActArgs& a) { return 4.5 + 0.45 * divide_up(a.in.channels, kStep); }

}  // namespace

// Where tiles of 64 pixels and 128 channels would be less than half of what fills a GPU. Above 4096 pixels,
// of few channels, each of these small blocks has too little to do.
bool has_few_pixels(const PointwiseConvBnActArgs& a) {
  const int64_t pixels = a.in.images * a.in.pixels();
  if (a.mean != nullptr || pixels > 4096 ||
      divide_up<int64_t>(pixels, 64) * divide_up(a.out_channels, 128) >= blocks_to_fill() / 2) {
    return false;
  }
  return few_pixels_time(a, make_few_plan(a)) <= tiles_time(a);
}

const char* run_few_pixels(const PointwiseConvBnActArgs& a, const Stream& stream) {
  return a.dtype == Dtype::kHalf ? launch_few<Half>(a, stream) : launch_few<BFloat16>(a, stream);
}

}  // namespace effkernels::cuda::pointwise
