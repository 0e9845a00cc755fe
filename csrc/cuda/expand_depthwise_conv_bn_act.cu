// expand_depthwise_conv_bn_act(_pool) in float16 and bfloat16: the expanded map, the largest of a network's
// block, stays in shared memory, row by row. For devices whose blocks have 227 KiB of it.
//
// Both convolutions are products on the tensor cores. The 1x1 convolution multiplies 16 channels, whose
// weights stay in registers, with 8 pixels of x. The depthwise convolution is, for each channel, a matrix of
// 16 patches of 2x4 results, a row being the window that a patch lies over, times a matrix of the channel's
// weights, a column being one of the 8 results. Windows are read from the expanded map as it lies in shared
// memory, channel by channel, so 2 to 6 products make 128 results; a matrix with a channel's weights on its
// diagonal would take 5 or 13.
//
// A warp computes 16 channels of the expanded map, and then 4 channels of the result. Results wait in shared
// memory to be stored, 96 bytes a pixel, a few between the products of the next step: if all were stored at
// once, the blocks, which run in step, would fill the memory's queues and wait.
//
// 0 * NaN and 0 * infinity are NaN: such a value in the expanded map makes NaN of the same channel's results
// in each patch whose window it is in. EFFKERNELS_CHANNELS_APART=1 chooses two kernels.

#include "cuda/expand_depthwise_conv_bn_act.h"

#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "cuda/common/expand_rows.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/pool.cuh"
#include "cuda/common/tensor_memory.cuh"
#include "cuda/depthwise_conv_bn_act.h"
#include "cuda/depthwise_tensor_core.h"
#include "cuda/pointwise_conv_bn_act.h"

namespace effkernels::cuda {
namespace {

using namespace expand_rows;

template <class T>
EFFKERNELS_DEVICE T& shared(uint32_t address) {
  return *static_cast<T*>(shared_at(address));
}

// In the depthwise product number `product`, lane % 4 = `lane` has four columns of one row of a window: those
// from 4 * four on. A row of -1: it has none.
struct WindowPart {
  int row, four;
};
template <class C>
EFFKERNELS_DEVICE WindowPart window_part(int product, int lane) {
  // Two rows and their first eight columns; then the last four columns of what is left, and the last row.
  if (C::kStride == 1 || product < C::kKernel / 2 + 1) return {2 * product + lane / 2, lane % 2};
  if (C::kKernel == 3) {
    if (product == 2) return {lane, 2};
    return {lane < 3 ? 4 : -1, lane};
  }
  if (product == 3) return {lane, 2};
  if (product == 4) return lane < 2 ? WindowPart{4 + lane, 2} : WindowPart{6, lane - 2};
  return {lane == 0 ? 6 : -1, 2};
}

// The pieces of 16 bytes of 8 pixels, of which lane 0 to 7 name the first, as the second matrix of a product.
template <int kPieces>
struct Terms {
  uint32_t at[round_up(kPieces, 4)];

  EFFKERNELS_DEVICE void load(uint32_t pixel, int lane) {
    constexpr int kRest = kPieces % 4;
    if constexpr (kPieces >= 4) load_matrices(pixel + lane / 8 * kPieceBytes, four(0));
    const uint32_t rest = pixel + kPieces / 4 * 4 * kPieceBytes;
    if constexpr (kRest == 3) load_matrices(rest + smaller(lane / 8, 2) * kPieceBytes, four(kPieces / 4));
    if constexpr (kRest == 2) {
      load_matrices(rest + lane / 8 % 2 * kPieceBytes, *reinterpret_cast<uint32_t (*)[2]>(&at[kPieces - 2]));
    }
    if constexpr (kRest == 1) {
      load_matrices(rest, *reinterpret_cast<uint32_t (*)[1]>(&at[kPieces - 1]));
    }
  }

 private:
  EFFKERNELS_DEVICE uint32_t (&four(int which))[4] {
    return *reinterpret_cast<uint32_t (*)[4]>(&at[4 * which]);
  }
};

template <bool kSilu, int kCount>
EFFKERNELS_DEVICE void normalise_and_activate(Activation activation, const Folded (&norm)[kCount / 2],
                                              float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = x[i] * norm[i / 2].scale + norm[i / 2].shift;
  if constexpr (kSilu) {
    silu(x);
  } else {
    if (activation == Activation::kSilu) __builtin_unreachable();
    activate(activation, x);
  }
}

template <class C, bool kSilu>
EFFKERNELS_KERNEL(kThreads, 1)
expand_depthwise_nhwc_fwd_kernel(const ExpandDepthwiseConvBnActArgs args, const Plan p, float* sums) {
#if EFFKERNELS_TENSOR_MEMORY
  using T = typename C::T;
  const DepthwiseConvBnActArgs& a = args.depthwise;
  const int thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  // Of a product's matrices a lane has rows `row` and `row` + 8 of the first, column `row` of the second, and
  // two neighbours in the other direction, by `pair`.
  const int row = lane / 4, pair = lane % 4;
  const auto index = static_cast<int>(block_index());
  const int chunk = index % p.chunks, strip_index = index / p.chunks % p.strips,
            own = index / (p.chunks * p.strips);
  const int first_channel = chunk * kChannels;
  const Strip strip = strip_of<C>(a, p, strip_index);
  const int first = p.shares.begin(own), last = p.shares.begin(own + 1);

  const uint32_t ring = shared_address(shared_memory());
  const uint32_t taps = ring + C::kTapsAt, results = ring + C::kResultsAt, pixels = ring + C::kPixelsAt;
  const uint32_t places = pixels + static_cast<uint32_t>(2 * p.stage_pixels * C::kPixelBytes);

  // Weights are on their way while the rest is prepared.
  const int of_expanded = warp % 3 * 16, quarter = warp / 3;
  constexpr int kWhole = C::kPieces / 2;  // products of 16 terms; the last one may have 8
  uint32_t factors[kWhole][4], last_factors[2];
  const auto factor = [&](int half, int term) {
    const int channel = first_channel + of_expanded + row + 8 * half;
    const T* from = static_cast<const T*>(args.expand_weight) +
                    static_cast<int64_t>(channel) * args.in_channels + term + 2 * pair;
    return *reinterpret_cast<const uint32_t*>(from);
  };
#pragma unroll
  for (int i = 0; i < kWhole * 4; ++i) factors[i / 4][i % 4] = factor(i % 2, i / 4 * 16 + i / 2 % 2 * 8);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if constexpr (C::kPieces % 2 == 1) last_factors[half] = factor(half, kWhole * 16);
  }
  constexpr int kTaps = C::kKernel * C::kKernel;
  {
    const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(first_channel) * kTaps;
    for (int i = thread; i < kChannels * kTaps; i += kThreads) {
      shared<uint16_t>(results + static_cast<uint32_t>(2 * i)) = weight[i].bits;
    }
  }
  Folded expand_norm[2], norm[4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    expand_norm[i] = fold(args.expand_norm, first_channel + of_expanded + row + 8 * i);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) norm[i] = fold(a.norm, first_channel + warp * 4 + i);
  let_next_launch_begin();
  // What is not written later is padding.
  for (int i = thread; i < C::kTapsAt / kPieceBytes; i += kThreads) {
    shared<Elements<uint32_t, 4>>(ring + static_cast<uint32_t>(i * kPieceBytes)) = {};
  }
  barrier();  // the depthwise weights are there
  // The weight that column `column` of a window has in a row's result number `result`, where the row lies
  // under row `tap_row` of the kernel.
  const auto tap = [&](int channel, int tap_row, int column, int result) -> uint32_t {
    const int tap_column = column - C::kStride * result - strip.lead;
    const bool there = tap_row >= 0 && tap_row < C::kKernel && tap_column >= 0 && tap_column < C::kKernel;
    const int at = channel * kTaps + (there ? tap_row * C::kKernel + tap_column : 0);
    return there ? shared<uint16_t>(results + static_cast<uint32_t>(2 * at)) : 0;
  };
  // Of this warp's channels, for each depthwise product: the second matrix, or where it is; and where the
  // first one is, in the first patch of the ring's first rows.
  uint32_t held[C::kTapsInRegisters ? 4 : 1][C::kProducts][2], taps_at[C::kProducts], window_at[C::kProducts];
  int window_rows[C::kProducts];  // pairs of rows below
#pragma unroll
  for (int i = 0; i < C::kProducts; ++i) {
    WindowPart part = window_part<C>(i, pair);
    const int tap_row = part.row - C::kStride * (row / kPatchColumns), result = row % kPatchColumns;
    const bool there = part.row >= 0 && tap_row >= 0 && tap_row < C::kKernel;
    if constexpr (C::kTapsInRegisters) {
#pragma unroll
      for (int e = 0; e < 4 * 2; ++e) {
        const auto element = [&](int column) {
          return tap(warp * 4 + e / 2, tap_row, part.four * 4 + e % 2 * 2 + column, result);
        };
        held[e / 2][i][e % 2] = element(0) | element(1) << 16;
      }
    } else {
      const int place = there ? C::taps_at(tap_row, part.four) + result * 8 : C::kTapBytes - C::kZerosBytes;
      taps_at[i] = taps + static_cast<uint32_t>(warp * 4 * C::kTapBytes + place);
    }
    if (part.row < 0)
      part = {C::kKernel + C::kStride - 1, C::kKernel == 3 ? 0 : 2};  // one that another lane reads
    window_rows[i] = part.row / 2;
    window_at[i] = ring + static_cast<uint32_t>(warp * 4 * C::kChannelBytes + part.row % 2 * C::kHalfBytes +
                                                part.four * 8);
  }
  if constexpr (!C::kTapsInRegisters) {
    constexpr int kOfChannel = C::kTapBytes / 2;
    for (int i = thread; i < kChannels * kOfChannel; i += kThreads) {
      // The third fours of all rows lie behind the first two; the zeros' tap_row is none of the kernel's.
      const int at = i % kOfChannel, block = at / 16, third = block - 2 * C::kKernel;
      const int tap_row = third < 0 ? block / 2 : third, four = third < 0 ? block % 2 : 2;
      const uint32_t bits = tap(i / kOfChannel, tap_row, four * 4 + at % 4, at / 4 % kPatchColumns);
      shared<uint16_t>(taps + static_cast<uint32_t>(2 * i)) = static_cast<uint16_t>(bits);
    }
  }

  // Starts to copy the pixels of a step, and says where in the ring a word of two of them goes.
  constexpr int kCopying = kThreads / C::kPieces;  // pixels at a time
  const auto divisor = static_cast<uint32_t>(strip.in);
  const uint32_t reciprocal = 0xffffffffu / divisor + 1;
  const auto row_of = [&](int pixel) {
    return static_cast<int>(uint64_t{static_cast<uint32_t>(pixel)} * reciprocal >> 32);
  };
  const auto copy_pixels = [&](const Step<C>& step, int stage, bool warming_up) {
    const RowsOfX rows(a, step.begin(warming_up), step.end());
    const int count = rows.count * strip.in;
    const int piece = thread % C::kPieces;
    const T* from =
        static_cast<const T*>(args.x) +
        ((static_cast<int64_t>(step.image) * a.in.height + rows.first) * a.in.width + strip.first) *
            args.in_channels +
        piece * kPieceElements;
    const uint32_t to =
        pixels + static_cast<uint32_t>(stage * p.stage_pixels * C::kPixelBytes + piece * kPieceBytes);
    if (thread < kCopying * C::kPieces) {
      for (int pixel = thread / C::kPieces; pixel < count; pixel += kCopying) {
        const int line = row_of(pixel), column = pixel - line * strip.in;
        copy_16_bytes(shared_at(to + static_cast<uint32_t>(pixel * C::kPixelBytes)),
                      from + (line * a.in.width + column) * args.in_channels, true);
      }
    }
    for (int i = thread; i < round_up(count, 8) / 2; i += kThreads) {
      const int line = row_of(2 * i), column = 2 * i - line * strip.in + strip.column;
      const int place = step.place(rows.first + a.window.top + line);
      const int at = place / 2 * C::kRowBytes + place % 2 * C::kHalfBytes + column * 2;
      shared<uint16_t>(places + static_cast<uint32_t>(stage * p.stage_pixels + 2 * i)) =
          static_cast<uint16_t>(2 * i < count ? at : C::kNowhere);
    }
  };

  // Pieces of results from shared memory: a thread has piece thread % 6 of the results of one lane, of
  // element `result / 32` of both halves of a product.
  const int result = thread / C::kPiecesOfResult, piece = thread % C::kPiecesOfResult;
  const int columns = strip.to - strip.from;
  const int64_t channels = a.out.channels;
  int out_row[2], out_offset[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int patch = half * 8 + result % kWarp / 4, of_patch = result % 4;
    out_row[half] = patch / C::kAcross * C::kStacked * kPatchRows + of_patch / 2;
    const int column = patch % C::kAcross * kPatchColumns + of_patch % 2 * 2 + result / kWarp;
    out_offset[half] = (out_row[half] * a.out.width + column) * a.out.channels;
    if (column >= columns) out_row[half] = C::kRows;  // never
  }
  struct Store {
    T* to;
    int rows;  // of the result
  };
  const auto store_of = [&](const Step<C>& step) {
    const int top = step.index * C::kRows;
    const int64_t at = (static_cast<int64_t>(step.image) * a.out.height + top) * a.out.width + strip.from;
    return Store{static_cast<T*>(a.y) + at * channels + first_channel + piece * kPieceElements,
                 smaller(C::kRows, a.out.height - top)};
  };
  const auto waiting = [&](int which) {
    return shared<Elements<uint32_t, 4>>(
        results + static_cast<uint32_t>((which * (kThreads / C::kPiecesOfResult) + result) * C::kResultBytes +
                                        piece * kPieceBytes));
  };
  const auto store = [&](const Store& store, int which, const Elements<uint32_t, 4>& words) {
    const bool lower = which % 2 != 0;
    const int down = which / 2 * kPatchRows;
    if ((lower ? out_row[1] : out_row[0]) + down < store.rows) {
      *reinterpret_cast<Elements<uint32_t, 4>*>(store.to + (lower ? out_offset[1] : out_offset[0]) +
                                                down * a.out.width * a.out.channels) = words;
    }
  };

  // The rows of the expanded map that a step adds to the ring. Between its products `stores` are made.
  const uint32_t ring_own = ring + static_cast<uint32_t>((of_expanded + row) * C::kChannelBytes);
  constexpr int kAtOnce = 4;  // groups of 8 pixels, so that one's products overlap the other's activation
  // So that four rounds make all stores, as a step has them; for three, 10.0 has too few registers.
  constexpr int kStoresAtOnce = divide_up(C::kStores, 4);
  const auto expand = [&](const Step<C>& step, int stage, bool warming_up, int stored, const Store& stores) {
    const int begin = step.begin(warming_up), end = step.end();
    const RowsOfX rows(a, begin, end);
    // Padding above and below the image.
    for (int r = begin; r < end; ++r) {
      if (r == rows.first + a.window.top && rows.count > 0) r += rows.count;
      if (r >= end) break;
      const int place = step.place(r);
      for (int w = lane; w < C::kRowBytes / 4; w += kWarp) {
        for (int channel = warp; channel < kChannels; channel += kWarps) {
          shared<uint32_t>(ring +
                           static_cast<uint32_t>(channel * C::kChannelBytes + place / 2 * C::kRowBytes +
                                                 place % 2 * C::kHalfBytes + w * 4)) = 0;
        }
      }
    }
    const uint32_t pixel =
        pixels + static_cast<uint32_t>((stage * p.stage_pixels + lane % 8) * C::kPixelBytes);
    const uint32_t place = places + static_cast<uint32_t>(stage * p.stage_pixels + pair * 2);
    const auto groups_at_once = [&](auto count, int group) {
      constexpr int kCount = decltype(count)::value;
      float x[kCount][4] = {};
      uint32_t at[kCount];
#pragma unroll
      for (int n = 0; n < kCount; ++n)
        at[n] = shared<uint16_t>(place + static_cast<uint32_t>((group + n) * 8));
      Terms<C::kPieces> terms[kCount];
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
        terms[n].load(pixel + static_cast<uint32_t>((group + n) * 8 * C::kPixelBytes), lane);
      }
#pragma unroll
      for (int s = 0; s < kWhole; ++s) {
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          multiply_add<T>(factors[s], terms[n].at[2 * s], terms[n].at[2 * s + 1], x[n]);
        }
      }
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
        if constexpr (C::kPieces % 2 == 1) {
          multiply_add(T{}, last_factors, terms[n].at[C::kPieces - 1], x[n], x[n]);
        }
        normalise_and_activate<kSilu>(a.activation, expand_norm, x[n]);
        const uint32_t to = ring_own + at[n];
        shared<uint32_t>(to) = narrow_pair<T>(x[n][0], x[n][1]);
        shared<uint32_t>(to + 8 * C::kChannelBytes) = narrow_pair<T>(x[n][2], x[n][3]);
      }
    };
    const int groups = divide_up(rows.count * strip.in, 8), groups_end = groups * (quarter + 1) / 4;
    int group = groups * quarter / 4;
#pragma unroll 1
    for (; group + kAtOnce <= groups_end; group += kAtOnce) {
      Elements<uint32_t, 4> words[kStoresAtOnce];
#pragma unroll
      for (int i = 0; i < kStoresAtOnce; ++i) {
        if (stored + i < C::kStores) words[i] = waiting(stored + i);
      }
      groups_at_once(std::integral_constant<int, kAtOnce>{}, group);
#pragma unroll
      for (int i = 0; i < kStoresAtOnce; ++i) {
        if (stored + i < C::kStores) store(stores, stored + i, words[i]);
      }
      stored += kStoresAtOnce;
    }
    if (group + 2 <= groups_end) {
      groups_at_once(std::integral_constant<int, 2>{}, group);
      group += 2;
    }
    if (group < groups_end) groups_at_once(std::integral_constant<int, 1>{}, group);
#pragma unroll 1
    for (; stored < C::kStores; ++stored) store(stores, stored, waiting(stored));
  };

  // In which halves of a product this lane's two columns of its patch are the strip's.
  uint32_t there = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int column = (i / 2 * 8 + row) % C::kAcross * kPatchColumns + pair % 2 * 2 + i % 2;
    there |= uint32_t{column < columns} << i;
  }
  float total[4] = {};
  const auto convolve = [&](const Step<C>& step) {
    constexpr int kWindows = C::kStride == 1 ? C::kStacked + C::kProducts - 1 : C::kProducts;
    // The step's first pair of rows in the ring.
    const auto top = static_cast<uint32_t>(step.place(step.top()) / 2);
    uint32_t at[C::kDown][kWindows];
#pragma unroll
    for (int i = 0; i < C::kDown * kWindows; ++i) {
      const int down = i / kWindows, window = i % kWindows;
      const int below = C::kStride == 1 ? window : window_rows[window];
      uint32_t rows = top + static_cast<uint32_t>(C::kStride * C::kStacked * down + below);
      if (rows >= C::kRing / 2) rows -= C::kRing / 2;
      // Patch `row` of the first half; of several rows of patches each half has one.
      at[down][window] = window_at[C::kStride == 1 ? 0 : window] + rows * C::kRowBytes +
                         static_cast<uint32_t>(row * kPatchColumns * C::kStride * 2);
    }
    const int rows = a.out.height - step.index * C::kRows;
    uint32_t words[C::kStacked][4][2];
    float z[2][C::kStacked][4];
#pragma unroll
    for (int channel = 0; channel < 4; ++channel) {
      uint32_t windows[kWindows][4];
#pragma unroll
      for (int i = 0; i < kWindows * 4; ++i) {
        const int half = i % 2, window = i / 4;
        const uint32_t from = C::kDown == 2 ? at[half % C::kDown][window]
                                            : at[0][window] + half * 8 * kPatchColumns * C::kStride * 2;
        windows[window][i % 4] =
            shared<uint32_t>(from + static_cast<uint32_t>(channel * C::kChannelBytes + i / 2 % 2 * 4));
      }
      float (&y)[C::kStacked][4] = z[channel % 2];
#pragma unroll
      for (int v = 0; v < C::kStacked; ++v) {
#pragma unroll
        for (int k = 0; k < 4; ++k) y[v][k] = 0.0f;
#pragma unroll
        for (int i = 0; i < C::kProducts; ++i) {
          if constexpr (C::kTapsInRegisters) {
            multiply_add<T>(windows[v + i], held[channel][i][0], held[channel][i][1], y[v]);
          } else {
            const auto tap =
                shared<Elements<uint32_t, 2>>(taps_at[i] + static_cast<uint32_t>(channel * C::kTapBytes));
            multiply_add<T>(windows[i], tap.at[0], tap.at[1], y[v]);
          }
        }
        const Folded both[2] = {norm[channel], norm[channel]};
        normalise_and_activate<kSilu>(a.activation, both, y[v]);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int patch_row = k / 2 * (C::kDown - 1) * C::kStacked * kPatchRows + v * kPatchRows + pair / 2;
          if ((there >> k & 1) && patch_row < rows) total[channel] += y[v][k];
          if (channel % 2 == 1) words[v][k][channel / 2] = narrow_pair<T>(z[0][v][k], z[1][v][k]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < C::kStacked * 4; ++i) {
      shared<Elements<uint32_t, 2>>(
          results + static_cast<uint32_t>((i * kWarp + lane) * C::kResultBytes + warp * 8)) = {
          words[i / 4][i % 4][0], words[i / 4][i % 4][1]};
    }
  };

  // The sums of this block's part of an image. Blocks that the image does not reach have sums too: zeros,
  // from the last one that it does reach.
  const auto write_sums = [&](const Step<C>& step) {
    // In the first two steps each lane gives half of its channels away: of lane / 8 it has the sum. Shared
    // with depthwise_tensor_core.cu as a function, this makes that kernel spill.
    const bool upper = lane & 16, odd = lane & 8;
    float two[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      two[i] = (upper ? total[2 + i] : total[i]) + shuffle_xor(upper ? total[i] : total[2 + i], 16);
    }
    float sum = (odd ? two[1] : two[0]) + shuffle_xor(odd ? two[0] : two[1], 8);
#pragma unroll
    for (int mask = 4; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
#pragma unroll
    for (float& t : total) t = 0.0f;
    if (lane % 8 != 0) return;
    const int part = own - p.shares.share_of(step.image * p.steps);
    const int end = step.index + 1 == p.steps ? p.parts : (part + 1) * p.strips;
    for (int i = part * p.strips + strip_index; i < end; i += p.strips) {
      sums[(static_cast<int64_t>(step.image) * p.parts + i) * channels + first_channel + warp * 4 +
           lane / 8] = sum;
      sum = 0.0f;
    }
  };

  wait_for_previous_launch();
  const bool within = first % p.steps != 0;  // an image, which another block has begun
  Step<C> next(p, first - within), before = next;
  copy_pixels(next, 0, within);
  int stage = 0;
#pragma unroll 1
  for (int s = first - within; s < last; ++s, stage ^= 1) {
    const Step<C> step = next;
    next.advance(p);
    wait_for_copies();
    barrier();  // the pixels are there, the results of the step before wait, its rows have been read
    if (s + 1 < last) copy_pixels(next, stage ^ 1, false);
    const int stored = s > first ? 0 : C::kStores;  // of the results that wait
    expand(step, stage, s < first, stored, store_of(before));
    barrier();
    if (s >= first) {
      convolve(step);
      if (sums != nullptr && (step.index + 1 == p.steps || s + 1 == last)) write_sums(step);
    }
    before = step;
  }
  barrier();
  const Store stores = store_of(before);
#pragma unroll 1
  for (int i = 0; i < C::kStores; ++i) store(stores, i, waiting(i));
#endif
}

// What the kernel needs, but for shared memory.
bool takes(const ExpandDepthwiseConvBnActArgs& args) {
  const DepthwiseConvBnActArgs& a = args.depthwise;
  const Window& w = a.window;
  const auto aligned_to = [](const void* p, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
  };
  return !channels_apart() && a.dtype != Dtype::kFloat && a.out.images > 0 && w.dilation_h == 1 &&
         w.dilation_w == 1 && w.kernel_w == w.kernel_h && w.stride_w == w.stride_h &&
         args.in_channels % kPieceElements == 0 && a.out.channels % kChannels == 0 &&
         aligned_to(args.x, kPieceBytes) && aligned_to(a.y, kPieceBytes) &&
         aligned_to(args.expand_weight, sizeof(uint32_t)) &&
         // Numbers of 32 bits: of all steps, and of elements within one.
         a.out.images * a.out.height < INT32_MAX / 2 && larger(a.in.width, a.out.width) < UINT16_MAX &&
         int64_t{kMostStepRows} * larger(a.in.width, a.out.width) * larger(a.out.channels, args.in_channels) <
             INT32_MAX;
}

// There is code for these input channels, kernels and strides: on an H100, in bfloat16 with 64 and 128
// images, a kernel of this structure took so many microseconds, beside those of two at their measured best:
//
//    16 >  96, 3x3 of stride 2, 112 px   187   273
//    24 > 144, 3x3 of stride 2, 228 px   590   871
//    24 > 144, 3x3,              56 px   109   145
//    24 > 144, 5x5 of stride 2,  56 px    86   112
//    40 > 240, 3x3,             114 px   400   471
//    40 > 240, 5x5 of stride 2, 114 px   300   356
//
// It was not faster with more channels, smaller maps or a 5x5 kernel of stride 1. 32 channels lie between.
// Of other activations than SiLU there is code for what the Lite networks have: 16 and 24 input channels with
// 3x3 of stride 2, 24 and 32 with the others.
//
// Calls f with the configuration and whether the activation is SiLU; returns `otherwise` if there is none.
template <class Result, class F>
Result with_kernel(const ExpandDepthwiseConvBnActArgs& args, Result otherwise, const F& f) {
  using std::integral_constant;
  const auto of_type = [&](auto pieces, auto kernel, auto stride, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using C = Config<T, decltype(pieces)::value, decltype(kernel)::value, decltype(stride)::value>;
    if (args.depthwise.activation == Activation::kSilu) return f(C{}, std::true_type{});
    constexpr int kPieces = decltype(pieces)::value;
    constexpr bool kInLite = kPieces < (kernel() == 3 && stride() == 2 ? 4 : 5);
    if constexpr (kInLite) return f(C{}, std::false_type{});
    return otherwise;
  };
  const auto of_window = [&](auto pieces, auto kernel, auto stride) {
    if (args.depthwise.dtype == Dtype::kHalf)
      return of_type(pieces, kernel, stride, static_cast<Half*>(nullptr));
    return of_type(pieces, kernel, stride, static_cast<BFloat16*>(nullptr));
  };
  const auto of_pieces = [&](auto kernel, auto stride) {
    constexpr bool kFew = decltype(kernel)::value == 3 && decltype(stride)::value == 2;
    switch (args.in_channels / kPieceElements) {
      case 2:
        if constexpr (kFew) return of_window(integral_constant<int, 2>{}, kernel, stride);
        break;
      case 3:
        return of_window(integral_constant<int, 3>{}, kernel, stride);
      case 4:
        return of_window(integral_constant<int, 4>{}, kernel, stride);
      case 5:
        if constexpr (!kFew) return of_window(integral_constant<int, 5>{}, kernel, stride);
        break;
      default:
        break;
    }
    return otherwise;
  };
  const int kernel = args.depthwise.window.kernel_h, stride = args.depthwise.window.stride_h;
  if (kernel == 3 && stride == 1) return of_pieces(integral_constant<int, 3>{}, integral_constant<int, 1>{});
  if (kernel == 3 && stride == 2) return of_pieces(integral_constant<int, 3>{}, integral_constant<int, 2>{});
  if (kernel == 5 && stride == 2) return of_pieces(integral_constant<int, 5>{}, integral_constant<int, 2>{});
  return otherwise;
}

// Whether one kernel is faster than two. It was measured with maps of 56 pixels and more on each side, and 20
// and more steps of a block; what a block prepares, and steps that other blocks do not have, take the time of
// about two.
bool pays(const DepthwiseConvBnActArgs& a, const Plan& p) {
  constexpr int kLeastPixels = 56, kLeastSteps = 10;
  return smaller(a.in.height, a.in.width) >= kLeastPixels && p.shares.each >= kLeastSteps;
}

// One without parts where there is no such kernel.
Plan plan_of(const ExpandDepthwiseConvBnActArgs& args) {
  if (!takes(args)) return {};
  return with_kernel(args, Plan{}, [&](auto config, auto silu) -> Plan {
    using C = decltype(config);
    if (!has_tensor_memory<expand_depthwise_nhwc_fwd_kernel<C, decltype(silu)::value>>()) return {};
    return make_plan<C>(args.depthwise, device_limits());
  });
}

// The expanded map of two kernels, rounded up so that what lies behind it is aligned as well.
int64_t floats_of_map(const ExpandDepthwiseConvBnActArgs& args) {
  const Shape& map = args.depthwise.in;
  return round_up<int64_t>(map.images * map.pixels() * map.channels * size_of(args.depthwise.dtype), 16) / 4;
}

// Stands for memory that torch has allocated: nothing but its alignment counts.
void* const kAligned = reinterpret_cast<void*>(256);

}  // namespace

int expand_depthwise_conv_bn_act_parts(const ExpandDepthwiseConvBnActArgs& args) {
  const char* chosen = std::getenv("EFFKERNELS_EXPAND_DEPTHWISE");
  const auto is = [&](const char* choice) { return chosen != nullptr && std::strcmp(chosen, choice) == 0; };
  if (is("two")) return 0;
  const Plan p = plan_of(args);
  return p.parts > 0 && (is("one") || pays(args.depthwise, p)) ? p.parts : 0;
}

const char* expand_depthwise_conv_bn_act_sums(const ExpandDepthwiseConvBnActArgs& args, float* sums,
                                              const Stream& stream) {
  const Plan p = plan_of(args);
  const Grid grid{"expand_depthwise_nhwc_fwd", int64_t{p.blocks} * p.strips * p.chunks, kThreads,
                  p.shared_bytes};
  const char* none = "one kernel does not take these arguments";
  if (p.parts == 0) return none;
  return with_kernel(args, none, [&](auto config, auto silu) {
    return launch(expand_depthwise_nhwc_fwd_kernel<decltype(config), decltype(silu)::value>, grid, stream,
                  args, p, sums);
  });
}

int64_t expand_depthwise_conv_bn_act_workspace(const ExpandDepthwiseConvBnActArgs& args) {
  const DepthwiseConvBnActArgs& a = args.depthwise;
  const int parts = expand_depthwise_conv_bn_act_parts(args);
  if (parts > 0) return a.mean == nullptr ? 0 : a.out.images * parts * a.out.channels;
  return floats_of_map(args) + depthwise_conv_bn_act_workspace(args.after(kAligned));
}

const char* expand_depthwise_conv_bn_act(const ExpandDepthwiseConvBnActArgs& args, float* workspace,
                                         const Stream& stream) {
  const DepthwiseConvBnActArgs& a = args.depthwise;
  if (a.out.images == 0) return nullptr;
  const int parts = expand_depthwise_conv_bn_act_parts(args);
  if (parts == 0) {
    const char* error = pointwise_conv_bn_act(args.expand(workspace), nullptr, stream);
    if (error != nullptr) return error;
    return depthwise_conv_bn_act(args.after(workspace), workspace + floats_of_map(args), stream);
  }
  float* sums = a.mean == nullptr ? nullptr : workspace;
  const char* error = expand_depthwise_conv_bn_act_sums(args, sums, stream);
  if (error != nullptr || sums == nullptr) return error;
  return mean_of_parts(sums, a.out.images, parts, a.out.channels, a.out.pixels(), a.mean, stream);
}

}  // namespace effkernels::cuda
