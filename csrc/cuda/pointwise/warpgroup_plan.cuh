#pragma once

// How the warpgroups' kernel cuts a product; see warpgroups.cu.

#include <type_traits>

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/warpgroup.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {

constexpr int kRowsOfGroup = 64;  // of pixels, of a warpgroup
// Of 4 bytes each that a multiprocessor has.
constexpr int kRegisters = 65536;

// How the warpgroups of a block divide its work: each takes tiles of 64 rows of its own, in turn; or they
// share each tile, of which each has 64 rows, or columns of its own.
enum class Division { kTurns, kRows, kColumns };

// Output channels of a warpgroup, and how many warpgroups multiply.
template <int kColumns_, int kWarpgroups_, Division kDivision>
struct WarpgroupConfig {
  static constexpr int kColumns = kColumns_, kWarpgroups = kWarpgroups_;
  static constexpr bool kTurns = kDivision == Division::kTurns;
  static constexpr int kTilesAtOnce = kTurns ? kWarpgroups : 1;
  // Of a tile: parts of its rows, and the rows themselves.
  static constexpr int kRowGroups = kDivision == Division::kRows ? kWarpgroups : 1;
  static constexpr int kRows = kRowGroups * kRowsOfGroup;
  // Of a block: parts of its columns, and the columns themselves.
  static constexpr int kColumnGroups = kDivision == Division::kColumns ? kWarpgroups : 1;
  static constexpr int kBlockColumns = kColumnGroups * kColumns;
  // Those of a tile and of a block before a warpgroup's own.
  EFFKERNELS_HOST_DEVICE static int rows_before(int group) { return group % kRowGroups * kRowsOfGroup; }
  EFFKERNELS_HOST_DEVICE static int columns_before(int group) { return group % kColumnGroups * kColumns; }
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

  // For a warpgroup: with the weights and the folded BatchNorm of its columns.
  template <class Config>
  EFFKERNELS_DEVICE Places of_group(const WarpgroupPlan& p, int group) const {
    const int columns = Config::columns_before(group);
    Places own = *this;
    own.weights += static_cast<uint32_t>(columns * p.steps * kRowBytes);
    own.folded += static_cast<uint32_t>(columns * static_cast<int>(sizeof(Folded)));
    return own;
  }
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

// How a configuration cuts a product into tiles.
struct WarpgroupCut {
  int tiles, column_blocks, parts;  // of rows; of columns; blocks of each of these
  int rounds;                       // that the busiest block takes

  // Whether no multiprocessor has a second tile.
  bool at_once() const { return int64_t{tiles} * column_blocks <= device_limits().multiprocessors; }
};

template <class Config>
WarpgroupCut warpgroup_cut(const PointwiseConvBnActArgs& a) {
  WarpgroupCut cut;
  cut.tiles = static_cast<int>(divide_up<int64_t>(a.in.images * a.in.pixels(), Config::kRows));
  cut.column_blocks = divide_up(a.out_channels, Config::kBlockColumns);
  const int turns = divide_up(cut.tiles, Config::kTilesAtOnce);
  cut.parts = larger(1, smaller(turns, device_limits().multiprocessors / cut.column_blocks));
  cut.rounds = divide_up(turns, cut.parts);
  return cut;
}

// Whether there is a plan for these arguments, which is then in `p`.
template <class Config>
bool make_warpgroup_plan(const PointwiseConvBnActArgs& a, WarpgroupPlan& p) {
  constexpr int kGroups = Config::kWarpgroups, kAtOnce = Config::kTilesAtOnce;
  p.pixels = static_cast<int>(a.in.pixels());
  p.rows = static_cast<int>(a.in.images) * p.pixels;
  p.out_channels = a.out_channels;
  p.residual = a.residual != nullptr;
  const WarpgroupCut cut = warpgroup_cut<Config>(a);
  p.tiles = cut.tiles;
  p.column_blocks = cut.column_blocks;
  p.parts = cut.parts;
  p.steps = divide_up(a.in.channels, kStep);
  p.last_products = divide_up(a.in.channels - (p.steps - 1) * kStep, kTerms);
  p.gate_images = a.gate == nullptr ? 0 : (Config::kRows - 1 + p.pixels - 1) / p.pixels + 1;

  constexpr int kAlignment = 1024, kMostStages = Config::kTurns ? 4 * kGroups : 8;
  const int chunk = Config::kBlockColumns * kRowBytes, pixel_bytes = Config::kRows * kRowBytes;
  const int gate_bytes = round_up(p.gate_images * kStep * 4, kAlignment);
  const int others = kAlignment + Config::kBlockColumns * static_cast<int>(sizeof(Folded)) +
                     (2 * kMostStages + 4 * kGroups + 1) * 8;
  const int all_stages = kAtOnce * cut.rounds * p.steps;
  const auto stages_beside = [&](int64_t resident, int buffers, int stage) {
    const int64_t room =
        device_limits().block_shared_bytes - others - resident - kGroups * buffers * Config::kResultBytes;
    const auto fitting = static_cast<int>(smaller<int64_t>(kMostStages, room / stage));
    return smaller(fitting, all_stages) / kAtOnce * kAtOnce;
  };
  // Fewer stages do not hide what memory takes.
  const int least = smaller(Config::kTurns ? 2 * kGroups : 3, all_stages);
  const int64_t all_weights = int64_t{chunk} * p.steps;
  if constexpr (Config::kColumnGroups > 1) {
    // Two buffers of results where pixels are still read two tiles ahead: on an H100, 112 > 672 channels of
    // 14 pixels on each side took 19.4 us so and 19.7 with one, 80 > 480 channels 13.7 and 15.2.
    p.resident = true;
    p.buffers =
        stages_beside(all_weights, 2, pixel_bytes + gate_bytes) >= smaller(2 * p.steps, all_stages) ? 2 : 1;
  } else {
    p.resident = cut.rounds > 1 && stages_beside(all_weights, 2, pixel_bytes + gate_bytes) >= least;
    // Warpgroups that take turns would each read all weights for each of their tiles.
    if (!p.resident && Config::kTurns && cut.rounds > 1) return false;
    // Where weights come again and again, stages are worth more: on an H100, 1152 > 192 channels of 49 pixels
    // took 24.8 us with 2 stages and 13.6 with 6.
    p.buffers = p.resident ? 2 : 1;
  }
  p.gates = pixel_bytes + (p.resident ? 0 : chunk);
  p.stage_bytes = p.gates + gate_bytes;
  p.stages = stages_beside(p.resident ? all_weights : 0, p.buffers, p.stage_bytes);
  if (p.stages < least) return false;
  p.results = p.stages * p.stage_bytes;
  p.weights = p.results + kGroups * p.buffers * Config::kResultBytes;
  p.folded = p.weights + (p.resident ? static_cast<int>(all_weights) : 0);
  p.mbarriers = p.folded + Config::kBlockColumns * static_cast<int>(sizeof(Folded));
  p.bytes = p.mbarriers + (2 * p.stages + 4 * kGroups + 1) * 8 + kAlignment;
  return true;
}

// Calls f with the configuration for these arguments, and whether it has gates. Measured on an H100 at the
// shapes of B0 (128 images) and B5 (64 images); shares are of the time that their bytes take.
template <class F>
auto with_warpgroup_config(const PointwiseConvBnActArgs& a, const F& f) {
  constexpr std::true_type kGated;
  constexpr std::false_type kNot;
  using std::integral_constant;
  constexpr integral_constant<int, 2> kTwo;
  constexpr integral_constant<int, 3> kThree;
  const int columns = a.out_channels;
  // 64 rows where no multiprocessor has a second tile then: with more, two thirds of them would have none.
  // Best of all for 98 tiles of 192 columns (128 images of 49 pixels).
  using Few96 = WarpgroupConfig<96, 1, Division::kRows>;
  // 192 rows, where there are few enough outputs for one block: 96 to 98 % from 144 and 240 channels of 114
  // pixels on each side, 70 to 80 % late.
  using Rows32 = WarpgroupConfig<32, 3, Division::kRows>;
  using Rows64 = WarpgroupConfig<64, 3, Division::kRows>;
  using Rows96 = WarpgroupConfig<96, 3, Division::kRows>;
  using Rows192 = WarpgroupConfig<192, 2, Division::kRows>;
  if (a.gate != nullptr) {
    const auto of_columns = [&](auto columns_of_block, auto warpgroups) {
      constexpr int kColumns = decltype(columns_of_block)::value, kMany = decltype(warpgroups)::value;
      using Few = WarpgroupConfig<kColumns, 1, Division::kRows>;
      if (warpgroup_cut<Few>(a).at_once()) return f(Few{}, kGated);
      return f(WarpgroupConfig<kColumns, kMany, Division::kRows>{}, kGated);
    };
    if (columns <= 32) return f(Rows32{}, kGated);
    if (columns <= 64) return of_columns(integral_constant<int, 64>{}, kThree);
    if (columns <= 96) return of_columns(integral_constant<int, 96>{}, kThree);
    if (columns <= 128) return of_columns(integral_constant<int, 128>{}, kThree);
    // Those that pad less: 160 for 304 and 320.
    if (round_up(columns, 160) < round_up(columns, 192)) {
      return of_columns(integral_constant<int, 160>{}, kTwo);
    }
    return of_columns(integral_constant<int, 192>{}, kTwo);
  }
  if (columns <= 32) return f(Rows32{}, kNot);
  if (columns <= 64) return f(Rows64{}, kNot);
  if (warpgroup_cut<Few96>(a).at_once()) return f(Few96{}, kNot);
  const int steps = divide_up(a.in.channels, kStep);
  if (steps == 1) {
    // Turns: 92 % for 16 > 96, 87 % for 24 > 144, 86 % for 40 > 240 channels. Of these the one that pads
    // least; the larger ones read pixels less often.
    const int by_96 = round_up(columns, 96), by_144 = round_up(columns, 144), by_240 = round_up(columns, 240);
    if (by_240 <= by_144 && by_240 <= by_96) return f(WarpgroupConfig<240, 2, Division::kTurns>{}, kNot);
    if (by_144 <= by_96) return f(WarpgroupConfig<144, 3, Division::kTurns>{}, kNot);
    return f(WarpgroupConfig<96, 3, Division::kTurns>{}, kNot);
  }
  if (columns <= 96 || warpgroup_cut<Rows96>(a).at_once()) return f(Rows96{}, kNot);
  if (columns <= 128) return f(WarpgroupConfig<128, 3, Division::kRows>{}, kNot);
  if (steps <= 3) {
    // Three warpgroups for their columns, whose weights stay. With 80 columns each: 71 % for 80 > 480
    // channels of 14 pixels; with 112: 70 % for 112 > 672, of which 96 take 52 %; with 96: 57 % for 192 >
    // 1152 of 7 pixels. Or 128 rows of 192 columns: 79 % for 128 > 768 of 29 pixels. The one whose busiest
    // block multiplies least.
    using Columns80 = WarpgroupConfig<80, 3, Division::kColumns>;
    using Columns96 = WarpgroupConfig<96, 3, Division::kColumns>;
    using Columns112 = WarpgroupConfig<112, 3, Division::kColumns>;
    const auto work = [&](auto config) {
      using Config = decltype(config);
      return int64_t{warpgroup_cut<Config>(a).rounds} * Config::kRows * Config::kBlockColumns;
    };
    const int64_t by_80 = work(Columns80{}), by_96 = work(Columns96{}), by_112 = work(Columns112{}),
                  by_rows = work(Rows192{});
    const int64_t least = smaller(smaller(by_80, by_96), smaller(by_112, by_rows));
    if (by_80 == least) return f(Columns80{}, kNot);
    if (by_96 == least) return f(Columns96{}, kNot);
    if (by_112 == least) return f(Columns112{}, kNot);
  }
  // Two warpgroups for 96 columns each, whose weights stay: 304 > 1824 channels of 15 pixels take 42.9 us so,
  // and 48.0 with 128 rows of 192 columns. But 176 > 1056 of 29 pixels take 100 and 72: where they were not
  // measured, rows.
  if (steps == 5) return f(WarpgroupConfig<96, 2, Division::kColumns>{}, kNot);
  return f(Rows192{}, kNot);
}

}  // namespace effkernels::cuda::pointwise
