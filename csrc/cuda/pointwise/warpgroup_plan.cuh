#pragma once

// How the warpgroups' kernel cuts a product; see warpgroups.cu.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/warpgroup.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {

constexpr int kRowsOfGroup = 64;  // of pixels, of a warpgroup
// Of 4 bytes each that a multiprocessor has.
constexpr int kRegisters = 65536;

// Output channels of a block, warpgroups that multiply, and whether they share a tile of pixels or each take
// tiles of their own.
template <int kColumns_, int kWarpgroups_, bool kShared_>
struct WarpgroupConfig {
  static constexpr int kColumns = kColumns_, kWarpgroups = kWarpgroups_;
  static constexpr bool kShared = kShared_;
  static constexpr int kRows = kRowsOfGroup * (kShared ? kWarpgroups : 1);  // pixels of a tile
  static constexpr int kThreads = (kWarpgroups + 1) * kWarpgroup;
  // Results are written in boxes of so many channels, as wide as a swizzle is.
  static constexpr int kChunk = kColumns % 64 == 0 ? 64 : kColumns % 32 == 0 ? 32 : 16;
  static constexpr Swizzle kSwizzle = kChunk == 64   ? Swizzle::k128Bytes
                                      : kChunk == 32 ? Swizzle::k64Bytes
                                                     : Swizzle::k32Bytes;
  static constexpr int kChunks = kColumns / kChunk, kChunkBytes = kRowsOfGroup * kChunk * 2;
  static constexpr int kResultBytes = kChunks * kChunkBytes;  // of a warpgroup
  // Registers of a thread: at the launch; those that the warpgroup which copies keeps; the others get the
  // rest. With one other there are more than it can use.
  static constexpr bool kMovesRegisters = kWarpgroups > 1;
  static constexpr int kLaunched = kRegisters / kThreads / 8 * 8;
  static constexpr int kFewRegisters = kWarpgroups == 2 ? 40 : 32;
  static constexpr int kRest = ((kWarpgroups + 1) * kLaunched - kFewRegisters) / kWarpgroups / 8 * 8;
  static constexpr int kManyRegisters = kRest < 240 ? kRest : 240;
};

struct WarpgroupPlan {
  int rows, pixels;  // of x; of an image
  int out_channels;
  int tiles, column_blocks, parts;  // blocks of a block of columns
  int steps, last_products;  // kStep input channels each, the last one of which has so many times kTerms
  int stages, buffers;       // buffers of results of a warpgroup
  int gate_images;           // whose pixels a tile has, at most; 0 without gates
  bool resident;             // the weights of the columns stay in shared memory
  bool residual;
  // Offsets in shared memory, in bytes: in a stage, then after the stages, and the size of all.
  int gates, stage_bytes, results, weights, folded, mbarriers, bytes;
};

// Addresses of these parts in shared memory.
struct Places {
  uint32_t stages, results, weights, folded, mbarriers;
};

// A stage, and which time around it is.
struct Turn {
  int stage;
  uint32_t parity;

  EFFKERNELS_DEVICE void next(int first, int end) {
    if (++stage < end) return;
    stage = first;
    parity ^= 1;
  }
};

// Whether there is a plan for these arguments, which is then in `p`.
template <class Config>
bool make_warpgroup_plan(const PointwiseConvBnActArgs& a, WarpgroupPlan& p) {
  const DeviceLimits device = device_limits();
  constexpr int kGroups = Config::kWarpgroups;
  p.pixels = static_cast<int>(a.in.pixels());
  p.rows = static_cast<int>(a.in.images) * p.pixels;
  p.out_channels = a.out_channels;
  p.residual = a.residual != nullptr;
  p.tiles = divide_up(p.rows, Config::kRows);
  p.column_blocks = divide_up(a.out_channels, Config::kColumns);
  p.steps = divide_up(a.in.channels, kStep);
  p.last_products = divide_up(a.in.channels - (p.steps - 1) * kStep, kTerms);
  p.gate_images = a.gate == nullptr ? 0 : (Config::kRows - 1 + p.pixels - 1) / p.pixels + 1;

  // Tiles that are multiplied at the same time by a block, and such rounds of all blocks.
  constexpr int kAtOnce = Config::kShared ? 1 : kGroups;
  p.parts = larger(1, smaller(divide_up(p.tiles, kAtOnce), device.multiprocessors / p.column_blocks));
  const int rounds = divide_up(divide_up(p.tiles, kAtOnce), p.parts);

  constexpr int kAlignment = 1024, kMostStages = Config::kShared ? 8 : 4 * kGroups;
  const int chunk = Config::kColumns * kRowBytes, pixel_bytes = Config::kRows * kRowBytes;
  const int gate_bytes = round_up(p.gate_images * kStep * 4, kAlignment);
  const int others = kAlignment + Config::kColumns * static_cast<int>(sizeof(Folded)) +
                     (2 * kMostStages + 4 * kGroups + 1) * 8;
  const auto stages_beside = [&](int64_t resident, int buffers, int stage) {
    const int64_t room =
        device.block_shared_bytes - others - resident - kGroups * buffers * Config::kResultBytes;
    const auto fitting = static_cast<int>(smaller<int64_t>(kMostStages, room / stage));
    return smaller(fitting, kAtOnce * rounds * p.steps) / kAtOnce * kAtOnce;
  };
  // Fewer stages do not hide what memory takes.
  const int least = smaller(Config::kShared ? 3 : 2 * kGroups, kAtOnce * rounds * p.steps);
  const int64_t all_weights = int64_t{chunk} * p.steps;
  p.resident = rounds > 1 && stages_beside(all_weights, 2, pixel_bytes + gate_bytes) >= least;
  // Warpgroups that take turns would each read all weights for each of their tiles.
  if (!p.resident && !Config::kShared && rounds > 1) return false;
  // Where weights come again and again, stages are worth more: on an H100, 1152 > 192 channels of 49 pixels
  // took 24.8 us with 2 stages and 13.6 with 6.
  p.buffers = p.resident ? 2 : 1;
  p.gates = pixel_bytes + (p.resident ? 0 : chunk);
  p.stage_bytes = p.gates + gate_bytes;
  p.stages = stages_beside(p.resident ? all_weights : 0, p.buffers, p.stage_bytes);
  if (p.stages < least) return false;
  p.results = p.stages * p.stage_bytes;
  p.weights = p.results + kGroups * p.buffers * Config::kResultBytes;
  p.folded = p.weights + (p.resident ? static_cast<int>(all_weights) : 0);
  p.mbarriers = p.folded + Config::kColumns * static_cast<int>(sizeof(Folded));
  p.bytes = p.mbarriers + (2 * p.stages + 4 * kGroups + 1) * 8 + kAlignment;
  return true;
}

}  // namespace effkernels::cuda::pointwise
