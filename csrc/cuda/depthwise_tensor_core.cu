// depthwise_conv_bn_act(_pool) in float16 and bfloat16 on the tensor cores, for compute capability 9.0 and
// newer.
//
// A product sums, for 16 pixels and 8 channels, two taps of each channel: the matrix of weights has two
// diagonals, which stay in registers as long as a block does. Rows of the other matrix are pixels, read from
// shared memory as they were copied there, so any tap and any stride is another address. TMA copies: what it
// finds outside of the image is zeros, which is the padding.
//
// A row of the input is copied once, read once, and added to all rows of the result under which it lies.
// Their accumulators rotate: the first product of a row reads accumulator j + 1 and writes accumulator j.
// What a row completes is normalised, activated and stored while the next row is multiplied.
//
// 0 * NaN and 0 * infinity are NaN: such a value in one channel makes NaN of the other 7 of its group of 8,
// within the window. EFFKERNELS_CHANNELS_APART=1 chooses the kernels without tensor cores.

#include "cuda/depthwise_tensor_core.h"

#include <cstdlib>
#include <type_traits>

#include "cuda/common/depthwise_rows.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/tensor_maps.h"

namespace effkernels::cuda {
namespace {

using namespace depthwise_rows;

template <bool kValue>
struct Constant {
  static constexpr bool value = kValue;
};

// A launch of more threads than a kernel is compiled for is refused.
static_assert(kMostGroups * kWarp <= threads_at_a_time(3) / 2 &&
              kMostGroups * kWarp <= threads_at_a_time(5) / 2);

template <class T, int kKernel, int kStride, bool kSilu>
EFFKERNELS_KERNEL(threads_at_a_time(kKernel) / 2, 2)
depthwise_rows_nhwc_fwd_kernel(EFFKERNELS_GRID_CONSTANT TensorMap in_boxes,
                               EFFKERNELS_GRID_CONSTANT TensorMap out_boxes,
                               EFFKERNELS_GRID_CONSTANT TensorMap out_rows, const DepthwiseConvBnActArgs a,
                               const Plan p, float* sums) {
#if EFFKERNELS_TENSOR_MEMORY
  constexpr int kTiles = 2;             // of 16 pixels, which a warp multiplies with the same weights
  constexpr int kHalves = 2 * kTiles;   // of 8 pixels
  constexpr int kPair = 2;              // channels of a lane
  constexpr int kResults = kTiles * 4;  // of a row, of a lane: its pair in each half
  constexpr int kTaps = kKernel * kKernel;
  constexpr int kTapPairs = kKernel / 2;          // of a row; its last tap has products of its own
  constexpr int kOpen = (kKernel - 1) / kStride;  // rows of the result that are begun and not complete
  const int thread = thread_index(), lane = thread % kWarp, group = thread / kWarp;
  const auto index = static_cast<int>(block_index());
  const int chunk = index % p.chunks, strip = index / p.chunks % p.strips,
            own = index / (p.chunks * p.strips);
  const int first_channel = chunk * p.groups * kGroup, first_column = strip * p.strip;
  const int pixel_bytes = p.groups * kPieceBytes;

  const uint32_t begin = round_up<uint32_t>(shared_address(shared_memory()), kBoxAlignment);
  const uint32_t out_begin = begin + static_cast<uint32_t>(p.stages * p.stage_bytes);
  const uint32_t mbarriers = out_begin + static_cast<uint32_t>(2 * p.out_stage_bytes);
  Stage* table = reinterpret_cast<Stage*>(shared_memory() +
                                          (mbarriers + kMbarrierBytes - shared_address(shared_memory())));
  const auto mbarrier = [&](int slot) { return mbarriers + static_cast<uint32_t>(slot * 8); };
  // The 16 bytes of this warp's channels of a pixel, counted from a multiple of 8 pixels.
  const auto piece = [&](uint32_t from, int pixel) {
    return swizzled(p.swizzle, from + static_cast<uint32_t>(pixel * pixel_bytes + group * kPieceBytes));
  };

  // Weights and norm are on their way while the rest is prepared. Of column n of a matrix of weights, lane
  // 4 * n + n / 2 has the diagonal's element.
  const int channel = first_channel + group * kGroup;
  const bool some = channel < a.in.channels;
  const int column = lane / 4, pair = lane % 4;
  uint32_t weights[kKernel][kKernel];
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
    const bool diagonal = some && column / 2 == pair;
    const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(channel + column) * kTaps + i;
    weights[i / kKernel][i % kKernel] = diagonal ? weight->bits : 0;
  }
  NormBits bits[kPair] = {};
#pragma unroll
  for (int e = 0; e < kPair; ++e) {
    if (some) bits[e] = norm_bits(a.norm, channel + pair * kPair + e);
  }
  let_next_launch_begin();

  const Share share = Share::of(a, p, own);
  const auto start_load = [&](int slot, int image_group, int row) {
    mbarrier_arrive_expecting(mbarrier(slot), p.stage_bytes);
    tma_load(begin + static_cast<uint32_t>(slot * p.stage_bytes), in_boxes, first_channel,
             first_column * kStride - a.window.left, row, image_group * p.abreast, mbarrier(slot));
  };
  const Segment head = share.segment(a, p, 0);
  if (thread == 0) {
#pragma unroll 1
    for (int slot = 0; slot < p.stages; ++slot) mbarrier_init(mbarrier(slot), 1);
    mbarrier_init_fence();
    wait_for_previous_launch();  // others touch no map before a copy of this one has come
#pragma unroll 1
    for (int slot = 0; slot < smaller(p.stages, head.stages); ++slot) {
      start_load(slot, share.group, head.first + slot * p.rows);
    }
  }
  const int count = share.stages(a, p);
  // From the last thread on: the first has more to do.
#pragma unroll 1
  for (int i = block_threads() - 1 - thread; i < share.segments; i += block_threads()) {
    const int image_group = share.group + i, at = i == 0 ? 0 : head.stages + (i - 1) * p.image_stages;
    write_stages(a, p, image_group, share.segment(a, p, i), own - first_share(a, p, image_group), table + at);
  }
  barrier();
  if (thread == 0) {
#pragma unroll 1
    for (int slot = head.stages; slot < smaller(p.stages, count); ++slot) {
      start_load(slot, table[slot].image_group, table[slot].first_row());
    }
  }
#pragma unroll
  for (int i = 0; i < kTaps; ++i) weights[i / kKernel][i % kKernel] <<= 16 * (column % 2);
  Folded norm[kPair];
#pragma unroll
  for (int e = 0; e < kPair; ++e) norm[e] = fold(a.norm, bits[e]);

  // Where a lane's row of a product's matrices is in the first stage: lanes 0 to 7 name the first half of the
  // pixels, 8 to 15 the second, 16 to 31 these of the next tap. Of four images a tile has two.
  const int second = lane / 8 % 2;
  const int first_pixel = (lane % 8 + (p.abreast == 4 ? 0 : second * 8)) * kStride + lane / 16;
  uint32_t places[kTapPairs + 1];
#pragma unroll
  for (int m = 0; m <= kTapPairs; ++m) {
    places[m] = piece(begin, first_pixel + 2 * m) +
                (p.abreast == 4 ? static_cast<uint32_t>(second * p.slab_bytes) : 0);
  }
  const auto tile_bytes = static_cast<uint32_t>(p.abreast == 1   ? 16 * kStride * pixel_bytes
                                                : p.abreast == 2 ? p.slab_bytes
                                                                 : 2 * p.slab_bytes);
  // Each lane stores a pixel's channels.
  const uint32_t out_place = piece(out_begin, lane % p.out_columns()) +
                             static_cast<uint32_t>(lane / p.out_columns() * p.out_slab_bytes);
  // In which halves this lane's column of the results is one of the strip's.
  const int strip_columns = smaller(p.strip, a.out.width - first_column);
  uint32_t there = 0;
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    there |= uint32_t{half * 8 % p.out_columns() + column < strip_columns} << half;
  }

  float total[kHalves][kPair] = {};
  float open[kTiles][kOpen][4] = {}, complete[kTiles][4] = {};
  uint32_t to = 0;

  const auto normalised = [&](const float (&first)[4], const float (&other)[4], float (&z)[kResults]) {
#pragma unroll
    for (int i = 0; i < kResults; ++i) {
      z[i] = (i < 4 ? first[i] : other[i - 4]) * norm[i % kPair].scale + norm[i % kPair].shift;
    }
  };
  const auto store_row = [&](float (&z)[kResults]) {
    if constexpr (kSilu) {
      // With a reciprocal each: here the instructions issued bind, not the special functions, and sharing one
      // takes two instructions more an element.
      for_each(z, [](float v) { return silu(v); });
    } else {
      if (a.activation == Activation::kSilu) __builtin_unreachable();
      activate(a.activation, z);
    }
    uint32_t words[kHalves];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      if (there >> half & 1) {
        total[half][0] += z[2 * half];
        total[half][1] += z[2 * half + 1];
      }
      words[half] = narrow_pair<T>(z[2 * half], z[2 * half + 1]);
    }
    store_matrices(to, words);
    to += static_cast<uint32_t>(p.out_row_bytes);
  };

  int slot = 0, parity = 0;
  uint32_t out_stage = 0;
#pragma unroll 1
  for (int s = 0; s < count; ++s) {
    const Stage stage = table[s];
    mbarrier_wait(mbarrier(slot), static_cast<uint32_t>(parity));
    if (some) {
      if (stage.first()) {
#pragma unroll
        for (int i = 0; i < kTiles * kOpen * 4; ++i) open[i / (kOpen * 4)][i / 4 % kOpen][i % 4] = 0.0f;
      }
      to = out_place + out_stage;
      auto from = static_cast<uint32_t>(slot * p.stage_bytes);
      uint32_t taps[kTiles][kTapPairs][4], last_tap[kTiles][2];
      const auto load_taps = [&](int tile) {
#pragma unroll
        for (int m = 0; m < kTapPairs; ++m)
          load_matrices(places[m] + from + tile * tile_bytes, taps[tile][m]);
        load_matrices(places[kTapPairs] + from + tile * tile_bytes, last_tap[tile]);
      };
      load_taps(0);
      load_taps(1);
      // A row of the input that completes one of the result, and stores the one before.
      const auto completing_row = [&](auto stores) {
        constexpr bool kStores = decltype(stores)::value;
        float z[kResults];
        if constexpr (kStores) normalised(complete[0], complete[1], z);
        // An epilogue with branches cannot be interleaved with the products, and it needs the registers of
        // the next row's taps: so these are loaded after it.
        constexpr bool kBranches = kStores && !kSilu;
        from += static_cast<uint32_t>(p.row_bytes);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          constexpr int kLast = kKernel - 1;
          const float zero[4] = {};
          multiply_add(T{}, taps[t][0], weights[kLast][0], weights[kLast][1], open[t][0], complete[t]);
#pragma unroll
          for (int j = 0; j < kOpen - 1; ++j) {
            const auto& w = weights[kLast - kStride * (j + 1)];
            multiply_add(T{}, taps[t][0], w[0], w[1], open[t][j + 1], open[t][j]);
          }
          multiply_add(T{}, taps[t][0], weights[0][0], weights[0][1], zero, open[t][kOpen - 1]);
#pragma unroll
          for (int m = 1; m < kTapPairs; ++m) {
            multiply_add(T{}, taps[t][m], weights[kLast][2 * m], weights[kLast][2 * m + 1], complete[t],
                         complete[t]);
#pragma unroll
            for (int j = 0; j < kOpen; ++j) {
              const auto& w = weights[kLast - kStride * (j + 1)];
              multiply_add(T{}, taps[t][m], w[2 * m], w[2 * m + 1], open[t][j], open[t][j]);
            }
          }
          multiply_add(T{}, last_tap[t], weights[kLast][kLast], complete[t], complete[t]);
#pragma unroll
          for (int j = 0; j < kOpen; ++j) {
            multiply_add(T{}, last_tap[t], weights[kLast - kStride * (j + 1)][kLast], open[t][j], open[t][j]);
          }
          if constexpr (!kBranches) load_taps(t);
        }
        if constexpr (kStores) store_row(z);
        if constexpr (kBranches) {
          load_taps(0);
          load_taps(1);
        }
      };
      // With stride 2, a row between those that complete one.
      const auto row_between = [&] {
        from += static_cast<uint32_t>(p.row_bytes);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
#pragma unroll
          for (int j = 0; j < kOpen; ++j) {
            const auto& w = weights[kKernel - 2 - kStride * j];
#pragma unroll
            for (int m = 0; m < kTapPairs; ++m) {
              multiply_add(T{}, taps[t][m], w[2 * m], w[2 * m + 1], open[t][j], open[t][j]);
            }
            multiply_add(T{}, last_tap[t], w[kKernel - 1], open[t][j], open[t][j]);
          }
          load_taps(t);
        }
      };
      int rows = stage.rows();
      const int storing = stage.emitting();
      if constexpr (kStride == 1) {
#pragma unroll 1
        for (; rows > storing; --rows) completing_row(Constant<false>{});
#pragma unroll 1
        for (; rows > 0; --rows) completing_row(Constant<true>{});
      } else {
        bool between = stage.odd();
#pragma unroll 1
        for (; rows > 0; --rows) {
          if (between) {
            row_between();
          } else if (rows <= storing) {
            completing_row(Constant<true>{});
          } else {
            completing_row(Constant<false>{});
          }
          between = !between;
        }
      }
      if (stage.last()) {
        float z[kResults];
        if (stage.pending()) {
          normalised(complete[0], complete[1], z);
          store_row(z);
        }
#pragma unroll
        for (int j = 0; j < kOpen; ++j) {
          if (j >= stage.flush_from() && j < stage.flush_to()) {
            normalised(open[0][j], open[1][j], z);
            store_row(z);
          }
        }
        if (sums != nullptr) {
          // Over the lanes that have the same channels, in three steps. In the first two each lane gives half
          // of its sums away: lane / 8 is the half of which it has one in the end.
          const bool upper = lane & 16, odd = lane & 8;
          float of_half[kPair];
#pragma unroll
          for (int e = 0; e < kPair; ++e) {
            if (p.abreast < 4) total[0][e] += total[1][e], total[2][e] += total[3][e];
            if (p.abreast < 2) total[0][e] += total[2][e];
            float two[2];
#pragma unroll
            for (int k = 0; k < 2; ++k) {
              two[k] = (upper ? total[2 + k][e] : total[k][e]) +
                       shuffle_xor(upper ? total[k][e] : total[2 + k][e], 16);
            }
            of_half[e] = (odd ? two[1] : two[0]) + shuffle_xor(odd ? two[0] : two[1], 8);
            of_half[e] += shuffle_xor(of_half[e], 4);
          }
          // Of fewer images, the halves that their sums were added to.
          const int at = lane / 8 * p.abreast;
          const int64_t image = int64_t{stage.image_group} * p.abreast + at / kHalves;
          if (lane % 8 < 4 && at % kHalves == 0 && image < a.out.images) {
            // Blocks that the image does not reach have sums too: zeros, from the last one that it does
            // reach.
            const bool ends = stage.out_row() + stage.out_rows() == a.out.height;
            const int end = ends ? p.parts : (stage.part() + 1) * p.strips;
#pragma unroll 1
            for (int part = stage.part() * p.strips; part < end; part += p.strips) {
              float* sum = sums + (image * p.parts + part + strip) * a.out.channels + channel;
              store(sum + pair * kPair, true, kPair, of_half);
              of_half[0] = of_half[1] = 0.0f;
            }
          }
        }
#pragma unroll
        for (int i = 0; i < kHalves * kPair; ++i) total[i / kPair][i % kPair] = 0.0f;
      }
    }
    fence_for_tma();
    // A warp for each image stores. What the stage before has stored is read before it is overwritten.
    const bool stores = group < p.abreast && lane == 0;
    if (stores) wait_for_groups_to_read<0>();
    barrier();
    if (stores) {
      int rows = stage.out_rows(), row = stage.out_row();
      const int image = stage.image_group * p.abreast + group;
      uint32_t source = out_begin + out_stage + static_cast<uint32_t>(group * p.out_slab_bytes);
#pragma unroll 1
      for (; rows >= p.box_rows; rows -= p.box_rows, row += p.box_rows) {
        tma_store(out_boxes, source, first_channel, first_column, row, image);
        source += static_cast<uint32_t>(p.box_rows * p.out_row_bytes);
      }
#pragma unroll 1
      for (; rows > 0; --rows, ++row) {
        tma_store(out_rows, source, first_channel, first_column, row, image);
        source += static_cast<uint32_t>(p.out_row_bytes);
      }
      commit_group();
    }
    if (group == p.groups - 1 && lane == 0 && s + p.stages < count) {
      start_load(slot, table[s + p.stages].image_group, table[s + p.stages].first_row());
    }
    out_stage = out_stage == 0 ? static_cast<uint32_t>(p.out_stage_bytes) : 0;
    if (++slot == p.stages) {
      slot = 0;
      parity ^= 1;
    }
  }
  if (group < p.abreast && lane == 0) wait_for_groups_to_read<0>();
#endif
}

// What the kernel needs, but for device code and shared memory.
bool takes(const DepthwiseConvBnActArgs& a) {
  const Window& w = a.window;
  if (channels_apart()) return false;
  return a.dtype != Dtype::kFloat && a.out.images > 0 && (w.kernel_h == 3 || w.kernel_h == 5) &&
         w.kernel_w == w.kernel_h && (w.stride_h == 1 || w.stride_h == 2) && w.stride_w == w.stride_h &&
         w.dilation_h == 1 && w.dilation_w == 1 && a.in.channels % kGroup == 0 &&
         reinterpret_cast<uintptr_t>(a.x) % kPieceBytes == 0 &&
         reinterpret_cast<uintptr_t>(a.y) % kPieceBytes == 0 &&
         // Some row of the image lies under every row of the result.
         w.top < w.kernel_h && int64_t{a.out.height - 1} * w.stride_h - w.top < a.in.height &&
         a.in.height <= kMostRows && a.out.height <= kMostRows && a.out.images * a.out.height < INT32_MAX / 2;
}

// Calls f with a null pointer of the element type and the constants of the kernel for these arguments.
template <class F>
auto with_kernel(const DepthwiseConvBnActArgs& a, const F& f) {
  const auto of_type = [&](auto kernel, auto stride, auto* type) {
    using K = decltype(kernel);
    using S = decltype(stride);
    using T = std::remove_pointer_t<decltype(type)>;
    if (a.activation == Activation::kSilu) return f(K{}, S{}, type, std::true_type{});
    return f(K{}, S{}, type, std::false_type{});
  };
  const auto of_window = [&](auto kernel, auto stride) {
    if (a.dtype == Dtype::kHalf) return of_type(kernel, stride, static_cast<Half*>(nullptr));
    return of_type(kernel, stride, static_cast<BFloat16*>(nullptr));
  };
  using std::integral_constant;
  const bool one = a.window.stride_h == 1;
  if (a.window.kernel_h == 3) {
    return one ? of_window(integral_constant<int, 3>{}, integral_constant<int, 1>{})
               : of_window(integral_constant<int, 3>{}, integral_constant<int, 2>{});
  }
  return one ? of_window(integral_constant<int, 5>{}, integral_constant<int, 1>{})
             : of_window(integral_constant<int, 5>{}, integral_constant<int, 2>{});
}

Plan plan_of(const DepthwiseConvBnActArgs& a) {
  if (!takes(a)) return Plan{};
  const bool there = with_kernel(a, [](auto kernel, auto stride, auto* type, auto silu) {
    using T [[maybe_unused]] = std::remove_pointer_t<decltype(type)>;
    return has_tensor_memory<depthwise_rows_nhwc_fwd_kernel<
        T, decltype(kernel)::value, decltype(stride)::value, decltype(silu)::value>>();
  });
  return there ? make_plan(a, device_limits(), kTable) : Plan{};
}

// Boxes of a map: a chunk of channels, so many columns and rows, so many images.
const char* encode_map(const void* data, Dtype dtype, const Shape& shape, const Plan& p, int columns,
                       int rows, int images, const Stream& stream, TensorMap& map) {
  const int64_t pixel = int64_t{shape.channels} * size_of(dtype), row = shape.width * pixel;
  return encode({data,
                 dtype,
                 4,
                 {shape.channels, shape.width, shape.height, shape.images},
                 {0, pixel, row, shape.height * row},
                 {p.groups * kGroup, columns, rows, images},
                 p.swizzle},
                stream, map);
}

}  // namespace

bool channels_apart() {
  const char* apart = std::getenv("EFFKERNELS_CHANNELS_APART");
  return apart != nullptr && apart[0] == '1';
}

int depthwise_tensor_core_parts(const DepthwiseConvBnActArgs& a) { return plan_of(a).parts; }

const char* depthwise_tensor_core(const DepthwiseConvBnActArgs& a, float* sums, const Stream& stream) {
  const Plan p = plan_of(a);
  TensorMap in_boxes, out_boxes, out_rows;
  const char* error = encode_map(a.x, a.dtype, a.in, p, p.columns, p.rows, p.abreast, stream, in_boxes);
  const int width = p.strips == 1 ? p.out_columns() : p.strip;
  if (error == nullptr) error = encode_map(a.y, a.dtype, a.out, p, width, p.box_rows, 1, stream, out_boxes);
  if (error == nullptr) error = encode_map(a.y, a.dtype, a.out, p, width, 1, 1, stream, out_rows);
  if (error != nullptr) return error;
  const Grid grid{"depthwise_rows_nhwc_fwd", int64_t{p.shares} * p.strips * p.chunks, p.groups * kWarp,
                  p.shared_bytes};
  return with_kernel(a, [&](auto kernel, auto stride, auto* type, auto silu) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch(depthwise_rows_nhwc_fwd_kernel<T, decltype(kernel)::value, decltype(stride)::value,
                                                 decltype(silu)::value>,
                  grid, stream, in_boxes, out_boxes, out_rows, a, p, sums);
  });
}

}  // namespace effkernels::cuda
