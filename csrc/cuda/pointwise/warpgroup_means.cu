// pointwise_conv_bn_act of which only the means over pixels are wanted, as of the head of a network, on the
// tensor cores of compute capability 9.0 (wgmma), elements of 16 bits.
//
// Output channels are the rows of the products and pixels their columns, so that a thread adds up pixels in
// registers. A block has the pixels of some images in shared memory, or of parts of images, and takes units
// of 64 output channels one after the other; two warpgroups take them in turns, so that one multiplies while
// the other one normalises, activates and adds up. One thread lets TMA copy the pixels, once, and the
// weights, in chunks of 64 input channels, as many ahead as there are stages.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/pool.cuh"
#include "cuda/common/tensor_maps.h"
#include "cuda/common/warpgroup.cuh"
#include "cuda/pointwise/kernels.h"
#include "cuda/pointwise/warpgroup_means_plan.cuh"
#include "cuda/pointwise/warpgroup_plan.cuh"

namespace effkernels::cuda::pointwise {
namespace {

// Threads and registers of a block, as where warpgroups take turns with tiles.
using Warpgroups = WarpgroupConfig<kUnit, kTakingTurns, Division::kTurns>;

// The mbarriers of a block: of each step of its pixels, whether they are there; of each stage of weights,
// whether it is full and whether it is empty; of each warpgroup, whether it is its turn to multiply.
struct MeansMbarriers {
  uint32_t first;
  int steps, stages;

  EFFKERNELS_DEVICE uint32_t at(int i) const { return first + static_cast<uint32_t>(i) * 8; }
  EFFKERNELS_DEVICE uint32_t pixels(int step) const { return at(step); }
  EFFKERNELS_DEVICE uint32_t full(int stage) const { return at(steps + stage); }
  EFFKERNELS_DEVICE uint32_t empty(int stage) const { return at(steps + stages + stage); }
  EFFKERNELS_DEVICE uint32_t turn_of(int group) const { return at(steps + 2 * stages + group); }

  EFFKERNELS_DEVICE void init() const {
    for (int step = 0; step < steps; ++step) mbarrier_init(pixels(step), 1);
    for (int stage = 0; stage < stages; ++stage) {
      mbarrier_init(full(stage), 1);
      mbarrier_init(empty(stage), 4);  // a lane of each warp
    }
    for (int group = 0; group < kTakingTurns; ++group) mbarrier_init(turn_of(group), 4);
    mbarrier_init_fence();
  }
};

// The thread that has everything read: of the segments from `segment` on, and of `units` units from `unit`
// on.
template <class Config>
EFFKERNELS_DEVICE void read_ahead(const MeansPlan& p, uint32_t begin, const MeansMbarriers& mbarriers,
                                  const TensorMap& x, const TensorMap& weight, int segment, int unit,
                                  int units) {
  Turn turn{0, 1};
  const auto read_weights = [&](int first, int end) {
    for (int i = first; i < end; ++i) {
      mbarrier_wait(mbarriers.empty(turn.stage), turn.parity);
      mbarrier_arrive_expecting(mbarriers.full(turn.stage), kUnitBytes);
      tma_load(begin + static_cast<uint32_t>(p.weights + turn.stage * kUnitBytes), weight,
               i % p.steps * kStep, (unit + i / p.steps) * kUnit, mbarriers.full(turn.stage));
      turn.next(0, p.stages);
    }
  };
  // Weights depend on nothing.
  const int chunks = units * p.steps, ahead = smaller(chunks, p.stages);
  read_weights(0, ahead);
  wait_for_previous_launch();
  for (int step = 0; step < p.steps; ++step) {
    mbarrier_arrive_expecting(mbarriers.pixels(step), Config::kStepBytes);
    for (int s = 0; s < Config::kSegments; ++s) {
      const int image = (segment + s) / p.parts, part = (segment + s) % p.parts;
      tma_load(begin + static_cast<uint32_t>(step * Config::kStepBytes + s * Config::kWidth * kRowBytes), x,
               step * kStep, part * Config::kWidth, image, mbarriers.pixels(step));
    }
  }
  read_weights(ahead, chunks);
}

// A warpgroup that multiplies: every second unit, from number `group` on.
template <class T, class Config>
struct MeansMultiplier {
  static constexpr int kColumns = Config::kColumns, kWidth = Config::kWidth;
  using Products = WarpgroupProducts<T, kColumns>;

  const MeansPlan& p;
  uint32_t begin;
  const MeansMbarriers& mbarriers;
  int group, warp, lane;  // warp of the warpgroup
  float* results;         // [images][parts][out channels]: sums, or means where an image has one part
  Turn turn{0, 0};
  // Four for every 8 pixels: of channel lane / 4 of the warp's 16 the pixels lane % 4 * 2 and the next, and
  // the same of the channel 8 further on.
  float sums[kColumns / 2] = {};
  // Of each segment, how many columns are in the image, from this lane's first one on.
  int there[Config::kSegments] = {};

  // To the chunk of weights so many further on.
  EFFKERNELS_DEVICE void skip(int chunks) {
    turn.stage += chunks;
    for (; turn.stage >= p.stages; turn.stage -= p.stages) turn.parity ^= 1;
  }

  EFFKERNELS_DEVICE void release(int stage) const {
    if (lane == 0) mbarrier_arrive(mbarriers.empty(stage));
  }

  // All products of the block's unit number `n`.
  EFFKERNELS_DEVICE void multiply(int n) {
    // After those of the unit before, which are the other warpgroup's.
    if (n > 0) mbarrier_wait(mbarriers.turn_of(group), static_cast<uint32_t>((n - 1) / kTakingTurns % 2));
    int before = 0;
#pragma unroll 1
    for (int step = 0; step < p.steps; ++step) {
      mbarrier_wait(mbarriers.pixels(step), 0);
      mbarrier_wait(mbarriers.full(turn.stage), turn.parity);
      const uint64_t weights = operand_at(begin + static_cast<uint32_t>(p.weights + turn.stage * kUnitBytes));
      const uint64_t pixels = operand_at(begin + static_cast<uint32_t>(step * Config::kStepBytes));
      hold(sums);
      warpgroup_fence();
#pragma unroll
      for (int i = 0; i < kStep / kTerms; ++i) {
        Products::start(sums, weights + i * kNextTerms, pixels + i * kNextTerms, step + i > 0);
      }
      end_products();
      if (step > 0) {
        wait_for_products<1>();
        release(before);
      }
      before = turn.stage;
      turn.next(0, p.stages);
    }
    if (lane == 0) mbarrier_arrive(mbarriers.turn_of(1 - group));
    hold(sums);
    wait_for_products<0>();
    hold(sums);
    release(before);
  }

  // Normalises, activates and adds up the results of a unit; returns the sums of the segment number lane % 4.
  EFFKERNELS_DEVICE void finish(Activation activation, const Folded (&norm)[2], float (&totals)[2]) {
#pragma unroll
    for (int s = 0; s < Config::kSegments; ++s) {
      float (&own)[kWidth / 2] = *reinterpret_cast<float (*)[kWidth / 2]>(sums + s * kWidth / 2);
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) own[i] = own[i] * norm[i % 4 / 2].scale + norm[i % 4 / 2].shift;
      activate(activation, own);
      float of_segment[2] = {};
      // The last 8 columns may be behind the image; more are where an image fills its last segment less than
      // those of networks do.
      constexpr int kWhole = kWidth - 8;
      if (there[s] + lane % 4 * 2 >= kWhole) {
#pragma unroll
        for (int i = 0; i < kWhole / 2; ++i) of_segment[i % 4 / 2] += own[i];
      } else {
#pragma unroll
        for (int i = 0; i < kWhole / 2; ++i) {
          of_segment[i % 4 / 2] += i / 4 * 8 + i % 2 < there[s] ? own[i] : 0.0f;
        }
      }
#pragma unroll
      for (int i = kWhole / 2; i < kWidth / 2; ++i) {
        of_segment[i % 4 / 2] += i / 4 * 8 + i % 2 < there[s] ? own[i] : 0.0f;
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        of_segment[h] += shuffle_xor(of_segment[h], 1);
        of_segment[h] += shuffle_xor(of_segment[h], 2);
        if (lane % 4 == s) totals[h] = of_segment[h];
      }
    }
  }

  EFFKERNELS_DEVICE void run(const Norm& norm, Activation activation, int segment, int unit, int units) {
    static_assert(Config::kSegments <= 4);  // a lane of four writes one of them
#pragma unroll
    for (int s = 0; s < Config::kSegments; ++s) {
      there[s] = p.pixels - (segment + s) % p.parts * kWidth - lane % 4 * 2;
    }
    const int own = segment + lane % 4;
    const bool writes = lane % 4 < Config::kSegments && own < p.images * p.parts;
    const float divisor = p.parts == 1 ? static_cast<float>(p.pixels) : 1.0f;
    float* const to = results + static_cast<int64_t>(own) * p.out_channels;
    skip(group * p.steps);
#pragma unroll 1
    for (int n = group; n < units; n += kTakingTurns) {
      // Of the lane's two channels; on its way while the warpgroup multiplies.
      const int channel = (unit + n) * kUnit + warp * 16 + lane / 4;
      NormBits bits[2] = {};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (channel + h * 8 < p.out_channels) bits[h] = norm_bits(norm, channel + h * 8);
      }
      multiply(n);
      float totals[2] = {};
      finish(activation, {fold(norm, bits[0]), fold(norm, bits[1])}, totals);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (writes && channel + h * 8 < p.out_channels) to[channel + h * 8] = totals[h] / divisor;
      }
      skip(p.steps);
    }
  }
};

template <class T, class Config>
EFFKERNELS_KERNEL(Warpgroups::kThreads, 1)
pointwise_means_warpgroup_fwd_kernel(EFFKERNELS_GRID_CONSTANT TensorMap x,
                                     EFFKERNELS_GRID_CONSTANT TensorMap weight, const Norm norm,
                                     const Activation activation, const MeansPlan p, float* results) {
#if EFFKERNELS_WARPGROUP_PRODUCTS
  let_next_launch_begin();
  // Swizzles repeat every 1024 bytes.
  const uint32_t begin = round_up(shared_address(shared_memory()), 1024u);
  const MeansMbarriers mbarriers{begin + static_cast<uint32_t>(p.mbarriers), p.steps, p.stages};
  const int segment = static_cast<int>(block_index() / p.groups) * Config::kSegments;
  const int unit = static_cast<int>(block_index() % p.groups) * p.units;
  const int units = smaller(p.units, divide_up(p.out_channels, kUnit) - unit);
  const int warp = uniform(thread_index() / kWarp), lane = thread_index() % kWarp;
  if (thread_index() == 0) mbarriers.init();
  barrier();
  if (warp >= 4 * kTakingTurns) {
    give_registers<Warpgroups::kFewRegisters>();
    if (warp > 4 * kTakingTurns || lane != 0) return;
    read_ahead<Config>(p, begin, mbarriers, x, weight, segment, unit, units);
  } else {
    take_registers<Warpgroups::kManyRegisters>();
    // Results may be read by the launch before.
    wait_for_previous_launch();
    MeansMultiplier<T, Config> multiplier{p, begin, mbarriers, warp / 4, warp % 4, lane, results};
    multiplier.run(norm, activation, segment, unit, units);
  }
#endif
}

template <class T, class Config>
const char* launch_means(const PointwiseConvBnActArgs& a, const MeansPlan& p, float* workspace,
                         const Stream& stream) {
  const int64_t row = int64_t{a.in.channels} * size_of(a.dtype);
  TensorMap x, weight;
  const char* error = encode({a.x,
                              a.dtype,
                              3,
                              {a.in.channels, p.pixels, p.images},
                              {0, row, row * p.pixels},
                              {kStep, Config::kWidth, 1},
                              Swizzle::k128Bytes},
                             stream, x);
  if (error == nullptr) {
    error = encode(
        {a.weight, a.dtype, 2, {a.in.channels, a.out_channels}, {0, row}, {kStep, kUnit}, Swizzle::k128Bytes},
        stream, weight);
  }
  if (error != nullptr) return error;
  float* results = p.parts == 1 ? a.mean : workspace;
  const Grid grid{"pointwise_means_warpgroup_fwd", int64_t{p.tiles} * p.groups, Warpgroups::kThreads,
                  p.bytes};
  error = launch(pointwise_means_warpgroup_fwd_kernel<T, Config>, grid, stream, x, weight, a.norm,
                 a.activation, p, results);
  if (error != nullptr || p.parts == 1) return error;
  return mean_of_parts(workspace, a.in.images, p.parts, a.out_channels, p.pixels, a.mean, stream);
}

// As `with_means_plan`, where this device has the kernel and it computes what is wanted.
template <class Result, class F>
Result with_means(const PointwiseConvBnActArgs& a, Result otherwise, const F& f) {
  if (a.mean == nullptr || a.y != nullptr || a.gate != nullptr || a.residual != nullptr) return otherwise;
  if (a.in.pixels() > INT32_MAX / 2) return otherwise;
  constexpr auto kAny = pointwise_means_warpgroup_fwd_kernel<Half, MeansConfig<2, 64>>;
  return has_warpgroup_products<kAny>() ? with_means_plan(a, otherwise, f) : otherwise;
}

}  // namespace

bool warpgroup_means_take(const PointwiseConvBnActArgs& a) {
  return with_means(a, false, [](auto, const MeansPlan&) { return true; });
}

int64_t warpgroup_means_workspace(const PointwiseConvBnActArgs& a) {
  return with_means(a, int64_t{0}, [&](auto, const MeansPlan& p) {
    return p.parts == 1 ? 0 : a.in.images * p.parts * a.out_channels;
  });
}

const char* run_warpgroup_means(const PointwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  return with_means(a, "warpgroups do not take these means", [&](auto config, const MeansPlan& p) {
    using Config = decltype(config);
    return a.dtype == Dtype::kHalf ? launch_means<Half, Config>(a, p, workspace, stream)
                                   : launch_means<BFloat16, Config>(a, p, workspace, stream);
  });
}

}  // namespace effkernels::cuda::pointwise
