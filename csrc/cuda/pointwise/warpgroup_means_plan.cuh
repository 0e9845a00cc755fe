#pragma once

// How the warpgroups' kernel for means cuts a product; see warpgroup_means.cu.

#include "cuda/common/elements.cuh"
#include "cuda/common/warpgroup.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {

constexpr int kUnit = 64;  // output channels of a product
constexpr int kUnitBytes = kUnit * kRowBytes;
constexpr int kTakingTurns = 2;  // warpgroups that multiply

// Pixels of a block: so many segments of so many columns, each of them an image or a part of one. What a
// segment has more than its image is multiplied, and left out of the sums.
template <int kSegments_, int kWidth_>
struct MeansConfig {
  static constexpr int kSegments = kSegments_, kWidth = kWidth_, kColumns = kSegments * kWidth;
  static constexpr int kStepBytes = kColumns * kRowBytes;  // of 64 input channels of its pixels
  static_assert(kWidth % 8 == 0);                          // rows of shared memory that are swizzled alike
};

struct MeansPlan {
  int images, pixels, out_channels;
  int parts;                      // segments of an image
  int tiles, groups, units;       // blocks of segments; of units; units of a block
  int steps, stages;              // kStep input channels each
  int weights, mbarriers, bytes;  // offsets in shared memory, in bytes, after the pixels; and its size
};

constexpr int kMostMeansStages = 16;
// mbarriers: of each step of pixels, two of each stage, and of each warpgroup.
inline int means_mbarriers(int steps, int stages) { return steps + 2 * stages + kTakingTurns; }

// A multiprocessor reads the weights of 64 channels as fast as it multiplies them by so many columns: 8 KB at
// 20 bytes a clock (an H100's share of its L2 cache, by count) for products of 2 clocks a column.
constexpr int kColumnsOfWeights = 205;

// A plan of the configuration and how long it takes, or INT64_MAX if there is none: units, and two more for
// what a block takes besides, times columns. On an H100 a laboratory kernel of this structure took 12.6 us
// for the head of B0 and 128 images with 4 of them in a block, and 14.0 with 2.
template <class Config>
int64_t make_means_plan(const PointwiseConvBnActArgs& a, MeansPlan& p) {
  p.images = static_cast<int>(a.in.images);
  p.pixels = static_cast<int>(a.in.pixels());
  p.out_channels = a.out_channels;
  p.parts = divide_up(p.pixels, Config::kWidth);
  if (int64_t{p.images} * p.parts > INT32_MAX - Config::kSegments) return INT64_MAX;
  // One unit leaves a warpgroup without work; and sums of many parts for few input channels are as many bytes
  // as the pixels. Four times as many output channels as input channels, as at the heads of networks, are
  // taken.
  if (a.out_channels <= kUnit) return INT64_MAX;
  const int64_t sums = int64_t{p.parts} * a.out_channels * 4, pixel_bytes = a.in.pixels() * a.in.channels * 2;
  if (p.parts > 1 && 4 * sums > pixel_bytes) return INT64_MAX;
  p.tiles = divide_up(p.images * p.parts, Config::kSegments);
  p.steps = divide_up(a.in.channels, kStep);
  // So many groups that the blocks run in so many waves.
  const int all = divide_up(a.out_channels, kUnit);
  int64_t least = INT64_MAX;
  for (int waves = 1; waves <= 4; ++waves) {
    const int64_t groups = int64_t{waves} * device_limits().multiprocessors / p.tiles;
    const int units = divide_up(all, static_cast<int>(smaller<int64_t>(larger<int64_t>(groups, 1), all)));
    const int64_t blocks = int64_t{p.tiles} * divide_up(all, units);
    const int64_t time = divide_up<int64_t>(blocks, device_limits().multiprocessors) * (units + 2) *
                         larger(Config::kColumns, kColumnsOfWeights);
    if (time >= least) continue;
    least = time;
    p.units = units;
    p.groups = divide_up(all, units);
  }
  constexpr int kAlignment = 1024;
  const int64_t pixels = int64_t{p.steps} * Config::kStepBytes;
  const int64_t room = device_limits().block_shared_bytes - kAlignment - pixels -
                       means_mbarriers(p.steps, kMostMeansStages) * 8;
  const int useful = smaller(kMostMeansStages, p.units * p.steps);
  p.stages = static_cast<int>(smaller<int64_t>(useful, room / kUnitBytes));
  // Two at least: one is free again only when the products of the next have begun.
  if (p.stages < smaller(3, useful)) return INT64_MAX;
  p.weights = static_cast<int>(pixels);
  p.mbarriers = p.weights + p.stages * kUnitBytes;
  p.bytes = kAlignment + p.mbarriers + means_mbarriers(p.steps, p.stages) * 8;
  return least;
}

// Calls f with the configuration of the fastest plan, and the plan, if there is one; returns what f does, or
// `otherwise`. How much of their columns the last maps of networks fill, by the pixels of a side: with 56, 7
// pixels 88 % and 10 89 %; with 64, 8 and 16 pixels 100 % and 17 90 %; with 48, 9 pixels 84 %, 12 100 %, 15
// and 19 94 %.
template <class Result, class F>
Result with_means_plan(const PointwiseConvBnActArgs& a, Result otherwise, const F& f) {
  using Of56 = MeansConfig<4, 56>;
  using Of64 = MeansConfig<2, 64>;
  using Of48 = MeansConfig<3, 48>;
  MeansPlan of_56{}, of_64{}, of_48{};
  const int64_t by_56 = make_means_plan<Of56>(a, of_56), by_64 = make_means_plan<Of64>(a, of_64),
                by_48 = make_means_plan<Of48>(a, of_48);
  const int64_t least = smaller(by_64, smaller(by_56, by_48));
  if (least == INT64_MAX) return otherwise;
  if (by_64 == least) return f(Of64{}, of_64);
  return by_56 == least ? f(Of56{}, of_56) : f(Of48{}, of_48);
}

}  // namespace effkernels::cuda::pointwise
