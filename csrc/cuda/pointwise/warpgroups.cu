// pointwise_conv_bn_act on the tensor cores of compute capability 9.0 (wgmma), elements of 16 bits.
//
// A block takes tiles of pixels one after the other, for the same output channels. One warp lets TMA copy
// pixels, the gates of their images and, unless they stay in shared memory, weights in chunks of 64 input
// channels, as many ahead as there are stages. Warpgroups multiply, normalise and activate; for each of them
// a warp has TMA write its results, and read residuals ahead of them.
//
// Without gates, where weights are few and stay, each warpgroup takes tiles of its own and has stages of its
// own: on an H100, 24 > 144 channels of 56 x 56 pixels take 57 us so, and 206 where weights are read again
// for each tile. With more input channels, warpgroups share a tile: each has the weights of its own columns,
// or they share these too, and each has rows of its own. With gates always the latter: pixels go through
// registers, where gates multiply them, rounded as in memory. warpgroup_plan.cuh has the choice.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/tensor_maps.h"
#include "cuda/common/warpgroup.cuh"
#include "cuda/pointwise/kernels.h"
#include "cuda/pointwise/warpgroup_plan.cuh"

namespace effkernels::cuda::pointwise {
namespace {

// The mbarriers of a block: of each stage, whether it is full and whether it is empty; of each buffer of
// results, whether it is ready to be written (free, and with the residual), and whether results are in it;
// and of the weights that stay.
template <class Config>
struct Mbarriers {
  uint32_t first;
  int stages;

  EFFKERNELS_DEVICE uint32_t at(int i) const { return first + static_cast<uint32_t>(i) * 8; }
  EFFKERNELS_DEVICE uint32_t full(int stage) const { return at(stage); }
  EFFKERNELS_DEVICE uint32_t empty(int stage) const { return at(stages + stage); }
  EFFKERNELS_DEVICE uint32_t ready(int group, int buffer) const {
    return at(2 * stages + 2 * group + buffer);
  }
  EFFKERNELS_DEVICE uint32_t done(int group, int buffer) const {
    return at(2 * stages + 2 * (Config::kWarpgroups + group) + buffer);
  }
  EFFKERNELS_DEVICE uint32_t weights() const { return at(2 * stages + 4 * Config::kWarpgroups); }

  EFFKERNELS_DEVICE void init() const {
    // Warps that read a stage.
    const int readers = 4 * (Config::kTurns ? 1 : Config::kWarpgroups);
    for (int stage = 0; stage < stages; ++stage) {
      mbarrier_init(full(stage), 1);
      mbarrier_init(empty(stage), readers);
    }
    for (int group = 0; group < Config::kWarpgroups; ++group) {
      for (int buffer = 0; buffer < 2; ++buffer) {
        mbarrier_init(ready(group, buffer), 1);
        mbarrier_init(done(group, buffer), 4);
      }
    }
    mbarrier_init(weights(), 1);
    mbarrier_init_fence();
  }
};

// The warp that has everything read, one thread of it.
template <class Config, bool kGated>
EFFKERNELS_DEVICE void read_ahead(const WarpgroupPlan& p, const Places& at,
                                  const Mbarriers<Config>& mbarriers, const TensorMap& x,
                                  const TensorMap& weight, const TensorMap& gate, int column, int first,
                                  int step) {
  constexpr int kRows = Config::kRows, kColumns = Config::kColumns;
  if (p.resident) {
    mbarrier_arrive_expecting(mbarriers.weights(), p.steps * Config::kBlockColumns * kRowBytes);
    for (int group = 0; group < Config::kColumnGroups; ++group) {
      for (int s = 0; s < p.steps; ++s) {
        tma_load(at.of_group<Config>(p, group).weights + static_cast<uint32_t>(s * kColumns * kRowBytes),
                 weight, s * kStep, column + Config::columns_before(group), mbarriers.weights());
      }
    }
  }
  wait_for_previous_launch();
  const int bytes = kRows * kRowBytes + (p.resident ? 0 : kColumns * kRowBytes) + p.gate_images * kStep * 4;
  // Rings of stages: one, or one for each warpgroup, whose turns come in order.
  constexpr int kRings = Config::kTilesAtOnce;
  const int ring_stages = p.stages / kRings;
  Turn turns[kRings];
#pragma unroll
  for (int ring = 0; ring < kRings; ++ring) turns[ring] = {ring * ring_stages, 1};
  int tile = first;
  while (tile < p.tiles) {
#pragma unroll
    for (int ring = 0; ring < kRings; ++ring, tile += step) {
      if (tile >= p.tiles) break;
      Turn& turn = turns[ring];
      const int row = tile * kRows;
      for (int s = 0; s < p.steps; ++s) {
        const uint32_t stage = at.stages + static_cast<uint32_t>(turn.stage * p.stage_bytes);
        const uint32_t full = mbarriers.full(turn.stage);
        mbarrier_wait(mbarriers.empty(turn.stage), turn.parity);
        mbarrier_arrive_expecting(full, bytes);
        tma_load(stage, x, s * kStep, row, full);
        if (!p.resident) tma_load(stage + kRows * kRowBytes, weight, s * kStep, column, full);
        if constexpr (kGated) {
          tma_load(stage + static_cast<uint32_t>(p.gates), gate, s * kStep, row / p.pixels, full);
        }
        turn.next(ring * ring_stages, (ring + 1) * ring_stages);
      }
    }
  }
}

// The warp that has the results of a warpgroup written, one thread of it.
template <class Config>
EFFKERNELS_DEVICE void write_behind(const WarpgroupPlan& p, const Places& at,
                                    const Mbarriers<Config>& mbarriers, const TensorMap& y,
                                    const TensorMap& residual, int group, int column, int first, int step) {
  const auto buffer_at = [&](int buffer) {
    return at.results + static_cast<uint32_t>((group * p.buffers + buffer) * Config::kResultBytes);
  };
  const auto row_of = [&](int tile) { return tile * Config::kRows + Config::rows_before(group); };
  column += Config::columns_before(group);
  // The buffer is free: for the residual of a tile, if there is one.
  const auto prepare = [&](int tile, int buffer) {
    const uint32_t ready = mbarriers.ready(group, buffer);
    if (!p.residual) return mbarrier_arrive(ready);
    mbarrier_arrive_expecting(ready, Config::kResultBytes);
    for (int c = 0; c < Config::kChunks; ++c) {
      tma_load(buffer_at(buffer) + static_cast<uint32_t>(c * Config::kChunkBytes), residual,
               column + c * Config::kChunk, row_of(tile), ready);
    }
  };
  wait_for_previous_launch();
  const int own_step = step * Config::kTilesAtOnce;
  const int own_first = Config::kTurns ? first + group * step : first;
  for (int buffer = 0; buffer < p.buffers; ++buffer) {
    const int tile = own_first + buffer * own_step;
    if (tile < p.tiles) prepare(tile, buffer);
  }
  Turn turn{0, 0};
  for (int tile = own_first; tile < p.tiles; tile += own_step) {
    mbarrier_wait(mbarriers.done(group, turn.stage), turn.parity);
    for (int c = 0; c < Config::kChunks; ++c) {
      if (column + c * Config::kChunk >= p.out_channels || row_of(tile) >= p.rows) break;
      tma_store(y, buffer_at(turn.stage) + static_cast<uint32_t>(c * Config::kChunkBytes),
                column + c * Config::kChunk, row_of(tile));
    }
    commit_group();
    wait_for_groups_to_read<0>();
    const int later = tile + p.buffers * own_step;
    if (later < p.tiles) prepare(later, turn.stage);
    turn.next(0, p.buffers);
  }
}

// A warpgroup that multiplies: 64 rows of pixels.
template <class T, class Config, bool kGated>
struct Multiplier {
  static constexpr int kColumns = Config::kColumns;
  using Products = WarpgroupProducts<T, kColumns>;

  const WarpgroupPlan& p;
  const Places at;
  const Mbarriers<Config>& mbarriers;
  int group, warp, lane;  // warp of the warpgroup
  Turn turn;
  int ring_first, ring_end;
  int before = -1;  // the stage whose products may still be running
  float sums[kColumns / 2] = {};
  // Of this lane's two rows, counted from the first image of the tile: where its gates are in a stage.
  uint32_t gates[2] = {};

  EFFKERNELS_DEVICE void release(int stage) const {
    if (lane == 0) mbarrier_arrive(mbarriers.empty(stage));
  }

  EFFKERNELS_DEVICE static void read_gates(uint32_t address, float (&gate)[2]) {
    load(static_cast<const float*>(shared_at(address)), true, 2, gate);
  }

  // Products of a step of kCount times kTerms terms.
  template <int kCount>
  EFFKERNELS_DEVICE void multiply(int step, uint32_t (&pixels)[4 * kStep / kTerms]) {
    mbarrier_wait(mbarriers.full(turn.stage), turn.parity);
    const uint32_t stage = at.stages + static_cast<uint32_t>(turn.stage * p.stage_bytes);
    const uint32_t rows = stage + static_cast<uint32_t>(Config::rows_before(group) * kRowBytes);
    const uint64_t factors =
        operand_at(p.resident ? at.weights + static_cast<uint32_t>(step * kColumns * kRowBytes)
                              : stage + Config::kRows * kRowBytes);
    if constexpr (kGated) {
      const uint32_t named =
          rows + static_cast<uint32_t>((warp * 16 + lane % 16) * kRowBytes + lane / 16 * 16);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        uint32_t loaded[4];
        load_matrices(swizzled(Swizzle::k128Bytes, named + i * 32), loaded);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t of_row = stage + gates[half] + static_cast<uint32_t>(i * kTerms * 4);
          float low[2], high[2];
          read_gates(of_row, low);
          read_gates(of_row + 32, high);
          pixels[4 * i + half] =
              narrow_pair<T>(low_of<T>(loaded[half]) * low[0], high_of<T>(loaded[half]) * low[1]);
          pixels[4 * i + half + 2] =
              narrow_pair<T>(low_of<T>(loaded[half + 2]) * high[0], high_of<T>(loaded[half + 2]) * high[1]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4 * kCount; ++i) hold(pixels[i]);
    }
    hold(sums);
    warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool add = step + i > 0;
      if constexpr (kGated) {
        Products::start(sums, pixels + 4 * i, factors + i * kNextTerms, add);
      } else {
        Products::start(sums, operand_at(rows) + i * kNextTerms, factors + i * kNextTerms, add);
      }
    }
    end_products();
    if (before >= 0) {
      wait_for_products<1>();
      release(before);
    }
    before = turn.stage;
    turn.next(ring_first, ring_end);
  }

  // All products of a tile.
  EFFKERNELS_DEVICE void multiply_all() {
    // Two sets of registers: one is read while the other is written.
    [[maybe_unused]] uint32_t pixels[2][4 * kStep / kTerms];
    constexpr int kAll = kStep / kTerms;
    const int whole = p.last_products == kAll ? p.steps : p.steps - 1;
    before = -1;
#pragma unroll 1
    for (int step = 0; step < whole; step += 2) {
      multiply<kAll>(step, pixels[0]);
      if (step + 1 < whole) multiply<kAll>(step + 1, pixels[1]);
    }
    if (whole < p.steps) {
      // Either set may be the one that is read.
      if (kGated && whole > 0) wait_for_products<0>();
      if (p.last_products == 1) {
        multiply<1>(whole, pixels[0]);
      } else if (p.last_products == 2) {
        multiply<2>(whole, pixels[0]);
      } else {
        multiply<3>(whole, pixels[0]);
      }
    }
    hold(sums);
    wait_for_products<0>();
    hold(sums);
    release(before);
  }

  EFFKERNELS_DEVICE void normalise() {
    const auto* folded = static_cast<const Folded*>(shared_at(at.folded)) + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      float norm[4];  // scale and shift of two columns
      load(reinterpret_cast<const float*>(folded + j * 8), true, 4, norm);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[4 * j + i] = sums[4 * j + i] * norm[i % 2 * 2] + norm[i % 2 * 2 + 1];
    }
  }

  // Writes the sums to the buffer, with the residual added that is there.
  template <bool kResidual>
  EFFKERNELS_DEVICE void write(uint32_t buffer) {
    // The row and, of two neighbouring vectors of 8 columns, the one that this lane names.
    const int row = warp * 16 + lane % 16, second = lane / 16;
#pragma unroll
    for (int j = 0; j < kColumns / 8; j += 2) {
      const int chunk = j * 8 / Config::kChunk;
      const auto vector = static_cast<uint32_t>(j * 8 % Config::kChunk / 8 + second);
      const uint32_t place =
          swizzled(Config::kSwizzle,
                   buffer + static_cast<uint32_t>(chunk * Config::kChunkBytes + row * Config::kChunk * 2) +
                       vector * 16);
      uint32_t words[4];
      if constexpr (kResidual) load_matrices(place, words);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float* pair = sums + 4 * (j + w / 2) + w % 2 * 2;
        if constexpr (kResidual) {
          words[w] = narrow_pair<T>(pair[0] + low_of<T>(words[w]), pair[1] + high_of<T>(words[w]));
        } else {
          words[w] = narrow_pair<T>(pair[0], pair[1]);
        }
      }
      store_matrices(place, words);
    }
  }

  EFFKERNELS_DEVICE void run(Activation activation, int first, int step) {
    Turn buffer{0, 0};
    const int own_step = step * Config::kTilesAtOnce;
    if (p.resident) mbarrier_wait(mbarriers.weights(), 0);
#pragma unroll 1
    for (int tile = Config::kTurns ? first + group * step : first; tile < p.tiles; tile += own_step) {
      if constexpr (kGated) {
        const int first_row = tile * Config::kRows, first_image = first_row / p.pixels;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row + Config::rows_before(group) + warp * 16 + half * 8 + lane / 4;
          // Rows behind the last one have its gates.
          const int image = smaller(row, p.rows - 1) / p.pixels - first_image;
          gates[half] = static_cast<uint32_t>(p.gates + (image * kStep + lane % 4 * 2) * 4);
        }
      }
      multiply_all();
      mbarrier_wait(mbarriers.ready(group, buffer.stage), buffer.parity);
      normalise();
      activate(activation, sums);
      const uint32_t results =
          at.results + static_cast<uint32_t>((group * p.buffers + buffer.stage) * Config::kResultBytes);
      if (p.residual) {
        write<true>(results);
      } else {
        write<false>(results);
      }
      fence_for_tma();
      warp_barrier();
      if (lane == 0) mbarrier_arrive(mbarriers.done(group, buffer.stage));
      buffer.next(0, p.buffers);
    }
  }
};

template <class T, class Config, bool kGated>
EFFKERNELS_KERNEL(Config::kThreads, 1)
pointwise_nhwc_warpgroup_fwd_kernel(EFFKERNELS_GRID_CONSTANT TensorMap x,
                                    EFFKERNELS_GRID_CONSTANT TensorMap weight,
                                    EFFKERNELS_GRID_CONSTANT TensorMap gate,
                                    EFFKERNELS_GRID_CONSTANT TensorMap y,
                                    EFFKERNELS_GRID_CONSTANT TensorMap residual, const Norm norm,
                                    const Activation activation, const WarpgroupPlan p) {
#if EFFKERNELS_WARPGROUP_PRODUCTS
  let_next_launch_begin();
  // Swizzles repeat every 1024 bytes.
  const uint32_t begin = round_up(shared_address(shared_memory()), 1024u);
  const Places at{begin, begin + static_cast<uint32_t>(p.results), begin + static_cast<uint32_t>(p.weights),
                  begin + static_cast<uint32_t>(p.folded), begin + static_cast<uint32_t>(p.mbarriers)};
  const Mbarriers<Config> mbarriers{at.mbarriers, p.stages};
  const int column = static_cast<int>(block_index() % p.column_blocks) * Config::kBlockColumns;
  const int first = static_cast<int>(block_index() / p.column_blocks), step = p.parts;
  const int warp = uniform(thread_index() / kWarp), lane = thread_index() % kWarp;
  if (thread_index() == 0) mbarriers.init();
  barrier();
  constexpr int kMultiplying = Config::kWarpgroups * 4;
  if (warp >= kMultiplying) {
    if constexpr (Config::kMovesRegisters) give_registers<Config::kFewRegisters>();
    if (lane != 0) return;
    const int own = warp - kMultiplying;
    if (own == 0) read_ahead<Config, kGated>(p, at, mbarriers, x, weight, gate, column, first, step);
    if (own > 0 && own <= Config::kWarpgroups) {
      write_behind<Config>(p, at, mbarriers, y, residual, own - 1, column, first, step);
    }
  } else {
    if constexpr (Config::kMovesRegisters) take_registers<Config::kManyRegisters>();
    auto* folded = static_cast<Folded*>(shared_at(at.folded));
    for (int c = thread_index(); c < Config::kBlockColumns; c += Config::kWarpgroups * kWarpgroup) {
      folded[c] = column + c < p.out_channels ? fold(norm, column + c) : Folded{};
    }
    named_barrier(1, Config::kWarpgroups * kWarpgroup);
    const int group = warp / 4;
    const int ring = Config::kTurns ? group : 0, ring_stages = p.stages / Config::kTilesAtOnce;
    Multiplier<T, Config, kGated> multiplier{p,
                                             at.of_group<Config>(p, group),
                                             mbarriers,
                                             group,
                                             warp % 4,
                                             lane,
                                             {ring * ring_stages, 0},
                                             ring * ring_stages,
                                             (ring + 1) * ring_stages};
    multiplier.run(activation, first, step);
  }
#endif
}

template <class T, class Config, bool kGated>
const char* launch_warpgroups(const PointwiseConvBnActArgs& a, const WarpgroupPlan& p, const Stream& stream) {
  // Matrices of rows of `columns` elements, and boxes of them.
  const auto matrix = [](const void* data, Dtype dtype, int64_t columns, int64_t rows, int box_columns,
                         int box_rows, Swizzle swizzle) {
    return TensorBoxes{
        data, dtype, 2, {columns, rows}, {0, columns * size_of(dtype)}, {box_columns, box_rows}, swizzle};
  };
  const auto map = [&](const void* data, TensorMap& to) {
    return encode(
        matrix(data, a.dtype, a.out_channels, p.rows, Config::kChunk, kRowsOfGroup, Config::kSwizzle), stream,
        to);
  };
  TensorMap x, weight, gate{}, y, residual{};
  const char* error = encode(
      matrix(a.x, a.dtype, a.in.channels, p.rows, kStep, Config::kRows, Swizzle::k128Bytes), stream, x);
  if (error == nullptr) {
    error = encode(
        matrix(a.weight, a.dtype, a.in.channels, a.out_channels, kStep, Config::kColumns, Swizzle::k128Bytes),
        stream, weight);
  }
  if (error == nullptr && kGated) {
    error = encode(
        matrix(a.gate, Dtype::kFloat, a.in.channels, a.in.images, kStep, p.gate_images, Swizzle::kNone),
        stream, gate);
  }
  if (error == nullptr) error = map(a.y, y);
  if (error == nullptr && p.residual) error = map(a.residual, residual);
  if (error != nullptr) return error;
  const Grid grid{"pointwise_nhwc_warpgroup_fwd", int64_t{p.parts} * p.column_blocks, Config::kThreads,
                  p.bytes};
  return launch(pointwise_nhwc_warpgroup_fwd_kernel<T, Config, kGated>, grid, stream, x, weight, gate, y,
                residual, a.norm, a.activation, p);
}

// Calls f with the launcher and the plan where this device has the kernel and there is a plan; returns what f
// does, or `otherwise`.
template <class Result, class F>
Result with_launcher(const PointwiseConvBnActArgs& a, Result otherwise, const F& f) {
  return with_warpgroup_config(a, [&](auto config, auto gated) {
    using Config = decltype(config);
    constexpr bool kGated = decltype(gated)::value;
    const auto with_type = [&](auto type) {
      using T = decltype(type);
      WarpgroupPlan p{};
      const bool taken = has_warpgroup_products<pointwise_nhwc_warpgroup_fwd_kernel<T, Config, kGated>>() &&
                         make_warpgroup_plan<Config>(a, p);
      return taken ? f(launch_warpgroups<T, Config, kGated>, p) : otherwise;
    };
    return a.dtype == Dtype::kHalf ? with_type(Half{}) : with_type(BFloat16{});
  });
}

}  // namespace

bool warpgroups_take(const PointwiseConvBnActArgs& a) {
  // TMA counts rows in 31 bits, and the last tile ends behind them. Too many gates belong to tiles of smaller
  // images.
  const bool few_rows = a.in.images <= INT32_MAX / 2 / a.in.pixels();
  if (a.mean != nullptr || !few_rows || (a.gate != nullptr && a.in.pixels() < 16)) return false;
  return with_launcher(a, false, [](auto, const WarpgroupPlan&) { return true; });
}

const char* run_warpgroups(const PointwiseConvBnActArgs& a, const Stream& stream) {
  const char* none = "there is no code for warpgroups";
  return with_launcher(a, none,
                       [&](auto launcher, const WarpgroupPlan& p) { return launcher(a, p, stream); });
}

}  // namespace effkernels::cuda::pointwise
