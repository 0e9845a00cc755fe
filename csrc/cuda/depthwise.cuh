#pragma once

// depthwise_conv_bn_act(_pool) for square kernels of 3, 5 and 7, strides 1 and 2, without dilation.
//
// A block computes a tile of pixels of a chunk of channels of one image. It copies the pixels under its tile
// to shared memory, 16 bytes at a time, and zeros for padding; each element comes from DRAM once, and again
// from L2 where tiles overlap. Then each thread takes two channels, keeps their weights in registers, and
// computes patches of pixels: each element under a patch is read and widened once.

#include <cstddef>
#include <type_traits>

#include "cuda/elements.cuh"
#include "cuda/fold.cuh"
#include "cuda/pool.cuh"

namespace effkernels::cuda::depthwise_tiles {

// Channels of a thread: 4 or 8 bytes, so that 32 lanes read and write whole lines of 128 bytes.
constexpr int kPair = 2;
constexpr int kMostThreads = 256;

template <int kKernel_, int kStride_>
struct Traits {
  static constexpr int kKernel = kKernel_, kStride = kStride_, kTaps = kKernel * kKernel;
  // Pixels of a thread. An element read serves 16 * taps / 36 products of 3x3 here, 16 * taps / 64 of 5x5.
  // With stride 2, or 49 weights, 4x4 pixels would need more registers than two blocks can have.
  static constexpr int kRows = kStride == 1 && kKernel < 7 ? 4 : 2;
  static constexpr int kColumns = 4;
  static constexpr int kInRows = (kRows - 1) * kStride + kKernel;
  static constexpr int kInColumns = (kColumns - 1) * kStride + kKernel;
  // Pixels of a block, at most. Wide ones overlap less; what is under them must leave room in 48 KB for two
  // blocks or more on a multiprocessor, so that one computes while others copy.
  //   3x3: 10x18 under 8x16; stride 2: 17x17 under 8x8.   5x5: 12x20 under 8x16; stride 2: 15x19 under 6x8.
  //   7x7: 14x14 under 8x8; stride 2: 13x21 under 4x8.    128 bytes each, if there are so many channels.
  static constexpr int kTileRows = kStride == 1 || kKernel == 3 ? 8 : kKernel == 5 ? 6 : 4;
  static constexpr int kTileColumns = kStride == 1 && kKernel < 7 ? 16 : 8;
  // Of 256 threads on a multiprocessor: 98 weights leave no room for two, and three of 3x3 spill.
  static constexpr int kBlocks = kKernel < 7 ? 2 : 1;
  static_assert(kTileRows % kRows == 0 && kTileColumns % kColumns == 0);
};

// How one call is cut into blocks.
struct Plan {
  int chunk, chunks;             // channels of a block, a multiple of 16 bytes
  int tile_rows, tile_columns;   // pixels of a block, whole patches
  int tiles_down, tiles_across;  // blocks of a chunk of an image
  int in_rows, in_columns;       // pixels under a block
  bool vectors, pairs;           // whether x may be read 16 bytes at a time, and y written in pairs

  int tiles() const { return tiles_down * tiles_across; }
};

// Calls copy(row, column, first channel) for every kWide elements under the tile: a thread keeps its
// channels, and goes on by `step` pixels without dividing.
template <int kWide, class Copy>
EFFKERNELS_DEVICE void for_elements_under(const Plan& p, const Copy& copy) {
  const int lanes = p.chunk / kWide, lane = thread_index() % lanes;
  const int step = block_threads() / lanes, first = thread_index() / lanes;
  if (first >= step) return;  // threads that make no whole pixel
  int row = first / p.in_columns, column = first % p.in_columns;
  while (row < p.in_rows) {
    copy(row, column, lane * kWide);
    column += step;
    while (column >= p.in_columns) {
      column -= p.in_columns;
      ++row;
    }
  }
}

template <class T, class Tile>
EFFKERNELS_KERNEL(kMostThreads, Tile::kBlocks)
depthwise_nhwc_kernel(const DepthwiseArgs a, const Plan p, float* sums) {
  constexpr int kStride = Tile::kStride, kTaps = Tile::kTaps;
  // Which block this is. Chunks are innermost: they share lines of DRAM.
  int64_t rest = block_index();
  const int channel = static_cast<int>(rest % p.chunks) * p.chunk;
  rest /= p.chunks;
  const int tiles = p.tiles_down * p.tiles_across, tile = static_cast<int>(rest % tiles);
  const int64_t image = rest / tiles;
  const int out_row = tile / p.tiles_across * p.tile_rows,
            out_column = tile % p.tiles_across * p.tile_columns;
  const int channels = smaller(p.chunk, a.in.channels - channel);

  T* inputs = reinterpret_cast<T*>(shared_memory());  // [in_rows][in_columns][chunk]
  float* weights = reinterpret_cast<float*>(inputs + p.in_rows * p.in_columns * p.chunk);  // [taps][chunk]
  Folded* folded = reinterpret_cast<Folded*>(weights + kTaps * p.chunk);                   // [chunk]
  const int in_row = out_row * kStride - a.window.top, in_column = out_column * kStride - a.window.left;
  const T* x = static_cast<const T*>(a.x) + image * a.in.height * a.in.width * a.in.channels + channel;
  // The pixel under the tile, or null where there is padding.
  const auto under = [&](int row, int column) -> const T* {
    const int h = in_row + row, w = in_column + column;
    const bool inside = h >= 0 && h < a.in.height && w >= 0 && w < a.in.width;
    return inside ? x + (static_cast<int64_t>(h) * a.in.width + w) * a.in.channels : nullptr;
  };
  if (p.vectors) {
    for_elements_under<kVector<T>>(p, [&](int row, int column, int c) {
      const T* from = under(row, column);
      const bool valid = from != nullptr && c < channels;
      copy_16_bytes(inputs + (row * p.in_columns + column) * p.chunk + c, valid ? from + c : x, valid);
    });
  } else {
    for_elements_under<kPair>(p, [&](int row, int column, int c) {
      const T* from = under(row, column);
      for (int e = c; e < c + kPair; ++e) {
        inputs[(row * p.in_columns + column) * p.chunk + e] = from != nullptr && e < channels ? from[e] : T{};
      }
    });
  }
  const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(channel) * kTaps;
  for (int i = thread_index(); i < p.chunk * kTaps; i += block_threads()) {
    const int c = i / kTaps;
    weights[(i - c * kTaps) * p.chunk + c] = c < channels ? widen(weight[i]) : 0.0f;
  }
  fold_channels(a.norm, channel, channels, p.chunk, folded);
  wait_for_copies();
  barrier();

  const int pairs = p.chunk / kPair, lane = thread_index() % pairs, group = thread_index() / pairs;
  const int groups = block_threads() / pairs;
  const int across = p.tile_columns / Tile::kColumns, patches = p.tile_rows / Tile::kRows * across;
  const int there = channels - lane * kPair;  // channels of this thread: below 1 where there are none
  float total[kPair] = {};
  if (group < groups && there > 0) {
    float weight_of[kTaps][kPair];
    const Folded norm[kPair] = {folded[lane * kPair], folded[lane * kPair + 1]};
#pragma unroll
    for (int e = 0; e < kPair; ++e) {
#pragma unroll
      for (int t = 0; t < kTaps; ++t) weight_of[t][e] = weights[t * p.chunk + lane * kPair + e];
    }
    T* y =
        static_cast<T*>(a.y) + image * a.out.height * a.out.width * a.out.channels + channel + lane * kPair;
#pragma unroll 1
    for (int patch = group; patch < patches; patch += groups) {
      const int patch_row = patch / across * Tile::kRows, patch_column = patch % across * Tile::kColumns;
      const T* corner =
          inputs + (patch_row * kStride * p.in_columns + patch_column * kStride) * p.chunk + lane * kPair;
      float result[Tile::kRows][Tile::kColumns][kPair] = {};
#pragma unroll
      for (int i = 0; i < Tile::kInRows; ++i) {
        float row[Tile::kInColumns][kPair];
#pragma unroll
        for (int j = 0; j < Tile::kInColumns; ++j) {
          load(corner + (i * p.in_columns + j) * p.chunk, true, kPair, row[j]);
        }
#pragma unroll
        for (int h = 0; h < Tile::kRows; ++h) {
          const int tap_row = i - h * kStride;
          if (tap_row < 0 || tap_row >= Tile::kKernel) continue;
#pragma unroll
          for (int k = 0; k < Tile::kKernel; ++k) {
#pragma unroll
            for (int w = 0; w < Tile::kColumns; ++w) {
#pragma unroll
              for (int e = 0; e < kPair; ++e) {
                result[h][w][e] += row[w * kStride + k][e] * weight_of[tap_row * Tile::kKernel + k][e];
              }
            }
          }
        }
      }
#pragma unroll
      for (int h = 0; h < Tile::kRows; ++h) {
        const int out_h = out_row + patch_row + h;
        if (out_h >= a.out.height) break;
        float row[Tile::kColumns * kPair];
#pragma unroll
        for (int i = 0; i < Tile::kColumns * kPair; ++i) {
          row[i] = result[h][i / kPair][i % kPair] * norm[i % kPair].scale + norm[i % kPair].shift;
        }
        activate(a.activation, row);
#pragma unroll
        for (int w = 0; w < Tile::kColumns; ++w) {
          const int out_w = out_column + patch_column + w;
          if (out_w >= a.out.width) break;
          const float pixel[kPair] = {row[w * kPair], row[w * kPair + 1]};
#pragma unroll
          for (int e = 0; e < kPair; ++e) total[e] += pixel[e];
          store(y + (static_cast<int64_t>(out_h) * a.out.width + out_w) * a.out.channels, p.pairs, there,
                pixel);
        }
      }
    }
  }
  if (sums != nullptr) {
    add_groups(total, group, groups, lane, p.chunk, channels, reinterpret_cast<float*>(shared_memory()),
               sums + (image * tiles + tile) * a.out.channels + channel);
  }
}

// Shared memory.
template <class T, class Tile>
int64_t bytes_of_a_channel(const Plan& p) {
  return p.in_rows * p.in_columns * sizeof(T) + Tile::kTaps * sizeof(float) + sizeof(Folded);
}

template <class T, class Tile>
Plan make_plan(const DepthwiseArgs& a) {
  Plan p;
  p.tile_rows = smaller(Tile::kTileRows, round_up(a.out.height, Tile::kRows));
  p.tile_columns = smaller(Tile::kTileColumns, round_up(a.out.width, Tile::kColumns));
  p.tiles_down = divide_up(a.out.height, p.tile_rows);
  p.tiles_across = divide_up(a.out.width, p.tile_columns);
  p.in_rows = (p.tile_rows - 1) * Tile::kStride + Tile::kKernel;
  p.in_columns = (p.tile_columns - 1) * Tile::kStride + Tile::kKernel;
  // A line of 128 bytes, if shared memory has room for so many; then chunks of the same size.
  const int room = static_cast<int>(kSharedBytes / bytes_of_a_channel<T, Tile>(p)) / kVector<T> * kVector<T>;
  const int most = smaller(128 / static_cast<int>(sizeof(T)), room);
  p.chunk = round_up(divide_up(a.in.channels, divide_up(a.in.channels, most)), kVector<T>);
  p.chunks = divide_up(a.in.channels, p.chunk);
  p.vectors = aligned<T, kVector<T>>(a.x, a.in.channels);
  p.pairs = aligned<T, kPair>(a.y, a.out.channels);
  return p;
}

// Tiles of an image, whatever the dtype.
template <class Tile>
int tiles_of(const DepthwiseArgs& a) {
  return make_plan<float, Tile>(a).tiles();
}

template <class T, class Tile>
const char* launch_tiles(const DepthwiseArgs& a, float* sums, void* stream) {
  const Plan p = make_plan<T, Tile>(a);
  const int pairs = p.chunk / kPair;
  const int patches = p.tile_rows * p.tile_columns / (Tile::kRows * Tile::kColumns);
  Grid grid;
  grid.blocks = a.out.images * p.tiles() * p.chunks;
  grid.threads = round_up(smaller(kMostThreads / pairs, patches) * pairs, kWarp);
  const int64_t totals = grid.threads * kPair * sizeof(float);
  grid.shared_bytes = larger(p.chunk * bytes_of_a_channel<T, Tile>(p), totals);
  return launch(depthwise_nhwc_kernel<T, Tile>, grid, stream, a, p, sums);
}

}  // namespace effkernels::cuda::depthwise_tiles
