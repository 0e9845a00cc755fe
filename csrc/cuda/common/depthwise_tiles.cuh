#pragma once

// Depthwise convolutions with square kernels of 3, 5 and 7, strides 1 and 2, without dilation, from tiles in
// shared memory.
//
// Each thread takes two channels, keeps their weights in registers, and computes patches of pixels: each
// element under a patch is read and widened once.

#include <cstddef>

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"

namespace effkernels::cuda::depthwise_tiles {

// Channels of a thread: 4 or 8 bytes, so that 32 lanes read and write whole lines of 128 bytes.
constexpr int kPair = 2;
constexpr int kMostThreads = 256;

// Rows of pixels of a thread. An element read serves 16 * taps / 36 products of 3x3 here, 16 * taps / 64 of
// 5x5. With stride 2, or 49 weights, 4x4 pixels would need more registers than two blocks can have.
template <int kKernel, int kStride>
constexpr int kPatchRows = kStride == 1 && kKernel < 7 ? 4 : 2;

template <int kKernel_, int kStride_, int kRows_ = kPatchRows<kKernel_, kStride_>>
struct Traits {
  static constexpr int kKernel = kKernel_, kStride = kStride_, kTaps = kKernel * kKernel;
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = 4;
  static constexpr int kInRows = (kRows - 1) * kStride + kKernel;
  static constexpr int kInColumns = (kColumns - 1) * kStride + kKernel;
  // Of 256 threads on a multiprocessor: 98 weights leave no room for two, and three of 3x3 spill.
  static constexpr int kBlocks = kKernel < 7 ? 2 : 1;
};

// Calls f with the traits for this window, or with nullptr where there are none.
template <class F>
auto with_tile(const Window& w, const F& f) {
  const bool plain =
      w.kernel_h == w.kernel_w && w.stride_h == w.stride_w && w.dilation_h == 1 && w.dilation_w == 1;
  const int kernel = plain && w.stride_h <= 2 ? w.kernel_h : 0;
  const bool one = w.stride_h == 1;
  if (kernel == 3) return one ? f(Traits<3, 1>{}) : f(Traits<3, 2>{});
  if (kernel == 5) return one ? f(Traits<5, 1>{}) : f(Traits<5, 2>{});
  if (kernel == 7) return one ? f(Traits<7, 1>{}) : f(Traits<7, 2>{});
  return f(nullptr);
}

// How one call is cut into tiles.
struct Plan {
  int chunk, chunks;             // channels of a tile
  int tile_rows, tile_columns;   // pixels of a tile, whole patches
  int tiles_down, tiles_across;  // of an image
  int in_rows, in_columns;       // pixels under a tile
  bool vectors, pairs;           // whether x may be read 16 bytes at a time, and y written in pairs

  EFFKERNELS_HOST_DEVICE int tiles() const { return tiles_down * tiles_across; }

  // With tiles of so many pixels, at most.
  template <class Tile>
  void cut(const Shape& out, int rows, int columns) {
    tile_rows = smaller(rows, round_up(out.height, Tile::kRows));
    tile_columns = smaller(columns, round_up(out.width, Tile::kColumns));
    tiles_down = divide_up(out.height, tile_rows);
    tiles_across = divide_up(out.width, tile_columns);
    in_rows = (tile_rows - 1) * Tile::kStride + Tile::kKernel;
    in_columns = (tile_columns - 1) * Tile::kStride + Tile::kKernel;
  }
};

// A tile: its first pixel, and the pixel of the input under its corner, which may be padding.
struct Tile {
  int64_t image;
  int index, out_row, out_column, in_row, in_column;
};

EFFKERNELS_DEVICE Tile tile_of(const Plan& p, const Window& window, int64_t index) {
  Tile tile;
  tile.image = index / p.tiles();
  tile.index = static_cast<int>(index - tile.image * p.tiles());
  tile.out_row = tile.index / p.tiles_across * p.tile_rows;
  tile.out_column = tile.index % p.tiles_across * p.tile_columns;
  tile.in_row = tile.out_row * window.stride_h - window.top;
  tile.in_column = tile.out_column * window.stride_w - window.left;
  return tile;
}

// Calls copy(row, column, first element) for every kWide of `elements` of each pixel: a thread keeps its
// elements, and goes on by `step` pixels without dividing.
template <int kWide, class Copy>
EFFKERNELS_DEVICE void for_elements(int rows, int columns, int elements, const Copy& copy) {
  const int lanes = elements / kWide, lane = thread_index() % lanes;
  const int step = block_threads() / lanes, first = thread_index() / lanes;
  if (first >= step || columns <= 0) return;  // threads that make no whole pixel
  int row = first / columns, column = first % columns;
  while (row < rows) {
    copy(row, column, lane * kWide);
    column += step;
    while (column >= columns) {
      column -= columns;
      ++row;
    }
  }
}

// The weights of those of `there` channels, [taps][chunk], and zeros for the others.
template <int kTaps, class T>
EFFKERNELS_DEVICE void stage_weights(const T* weight, int there, int chunk, float* weights) {
  for (int i = thread_index(); i < chunk * kTaps; i += block_threads()) {
    const int c = i / kTaps;
    weights[(i - c * kTaps) * chunk + c] = c < there ? widen(weight[i]) : 0.0f;
  }
}

// The channels of a thread, and which of the groups of threads it is in: each group has all channels of a
// chunk, and takes a patch at a time.
struct Lane {
  int index, group, groups;

  EFFKERNELS_DEVICE static Lane of(int chunk) {
    const int pairs = chunk / kPair;
    return {thread_index() % pairs, thread_index() / pairs, block_threads() / pairs};
  }
};

// What is in shared memory for a tile and a chunk of channels.
template <class T>
struct Staged {
  const T* inputs;        // [in_rows][in_columns][pitch]
  int pitch;              // elements from pixel to pixel
  const float* weights;   // [taps][chunk]
  const Folded* folded;   // [chunk]
  int channel, channels;  // the first of the chunk, and how many of it there are
};

// The pixels of a tile. Adds what this thread computes to `total`, channel by channel.
template <class Traits, class T>
EFFKERNELS_DEVICE void compute_patches(const DepthwiseConvBnActArgs& a, const Plan& p, const Tile& tile,
                                       const Staged<T>& staged, const Lane& lane, float (&total)[kPair]) {
  constexpr int kStride = Traits::kStride, kTaps = Traits::kTaps;
  const int first = lane.index * kPair;
  const int there = staged.channels - first;  // channels of this thread: below 1 where there are none
  if (lane.group >= lane.groups || there <= 0) return;
  const int across = p.tile_columns / Traits::kColumns, patches = p.tile_rows / Traits::kRows * across;
  float weight_of[kTaps][kPair];
  const Folded norm[kPair] = {staged.folded[first], staged.folded[first + 1]};
#pragma unroll
  for (int e = 0; e < kPair; ++e) {
#pragma unroll
    for (int t = 0; t < kTaps; ++t) weight_of[t][e] = staged.weights[t * p.chunk + first + e];
  }
  T* y = static_cast<T*>(a.y) + tile.image * a.out.height * a.out.width * a.out.channels + staged.channel +
         first;
#pragma unroll 1
  for (int patch = lane.group; patch < patches; patch += lane.groups) {
    const int patch_row = patch / across * Traits::kRows, patch_column = patch % across * Traits::kColumns;
    const T* corner =
        staged.inputs + (patch_row * kStride * p.in_columns + patch_column * kStride) * staged.pitch + first;
    float result[Traits::kRows][Traits::kColumns * kPair] = {};
#pragma unroll
    for (int i = 0; i < Traits::kInRows; ++i) {
      float row[Traits::kInColumns][kPair];
#pragma unroll
      for (int j = 0; j < Traits::kInColumns; ++j) {
        load(corner + (i * p.in_columns + j) * staged.pitch, true, kPair, row[j]);
      }
#pragma unroll
      for (int h = 0; h < Traits::kRows; ++h) {
        const int tap_row = i - h * kStride;
        if (tap_row < 0 || tap_row >= Traits::kKernel) continue;
#pragma unroll
        for (int k = 0; k < Traits::kKernel; ++k) {
#pragma unroll
          for (int w = 0; w < Traits::kColumns; ++w) {
#pragma unroll
            for (int e = 0; e < kPair; ++e) {
              result[h][w * kPair + e] +=
                  row[w * kStride + k][e] * weight_of[tap_row * Traits::kKernel + k][e];
            }
          }
        }
      }
    }
#pragma unroll
    for (int h = 0; h < Traits::kRows; ++h) {
      const int out_h = tile.out_row + patch_row + h;
      if (out_h >= a.out.height) break;
      float (&pixels)[Traits::kColumns * kPair] = result[h];
#pragma unroll
      for (int i = 0; i < Traits::kColumns * kPair; ++i) {
        pixels[i] = pixels[i] * norm[i % kPair].scale + norm[i % kPair].shift;
      }
      activate(a.activation, pixels);
#pragma unroll
      for (int w = 0; w < Traits::kColumns; ++w) {
        const int out_w = tile.out_column + patch_column + w;
        if (out_w >= a.out.width) break;
        float pixel[kPair];
#pragma unroll
        for (int e = 0; e < kPair; ++e) {
          pixel[e] = pixels[w * kPair + e];
          total[e] += pixel[e];
        }
        store(y + (static_cast<int64_t>(out_h) * a.out.width + out_w) * a.out.channels, p.pairs, there,
              pixel);
      }
    }
  }
}

}  // namespace effkernels::cuda::depthwise_tiles
