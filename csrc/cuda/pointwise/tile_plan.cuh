#pragma once

// How the tensor cores' kernel cuts a product into tiles, stages and thread blocks; see tiles.cu.

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda::pointwise {

constexpr int kVectors = kRowBytes / 16;  // of a row of shared memory
constexpr int kGroup = 32;                // output channels that a warp computes together
constexpr int kEight = 8;                 // of them a lane's, neighbours

// Warps of a block along pixels and along output channels. A warp has kFragments times 16 pixels and kGroups
// times 32 channels; sums of 16 x 8 are 4 registers of a thread. kMeans: whether it also computes means.
template <int kWarpRows_, int kWarpColumns_, int kFragments_, int kGroups_, int kStages_, int kBlocks_,
          bool kMeans_ = false>
struct TileConfig {
  static constexpr int kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kFragments = kFragments_, kGroups = kGroups_;
  static constexpr int kRows = kWarpRows * kFragments * 16;         // pixels of a tile
  static constexpr int kColumns = kWarpColumns * kGroups * kGroup;  // output channels of a tile
  static constexpr int kThreads = kWarpRows * kWarpColumns * kWarp;
  static constexpr int kStages = kStages_;  // at most
  static constexpr int kBlocks = kBlocks_;  // on a multiprocessor, for which registers must suffice
  static constexpr bool kMeans = kMeans_;
};

// All of them, counted on the shapes of B0 to B7 and not measured yet. Stages and blocks fill the shared
// memory of an H100's multiprocessor, 227 KB.
using Narrow = TileConfig<8, 1, 1, 1, 3, 3>;  // 128 x 32: every output of a project in one block
using Middle = TileConfig<8, 1, 1, 2, 4, 2>;  // 128 x 64: the same
using Wide = TileConfig<8, 1, 1, 3, 3, 2>;    // 128 x 96: pads 144, 176, 192 or 672 channels less than 128 do
using Square = TileConfig<4, 2, 2, 2, 3, 2>;  // 128 x 128: what is read of shared memory serves most products
using Low = TileConfig<2, 4, 2, 1, 6, 2, true>;  // 64 x 128: few pixels, as of late layers; means
static_assert(Low::kStages <= kMostOpenGroups + 2);

struct TilePlan {
  // The rows of x are those of `segments`, one after the other: of images, where tiles must not span two; or
  // of one segment.
  int64_t segments, rows;  // rows of a segment
  int64_t pixels;          // of an image
  int tiles;               // of a segment
  bool of_images;          // whether segments are images
  // A block takes one block of columns, and so many tiles, one after the other.
  int column_blocks;
  int64_t parts;
  int tiles_of_part;
  int parts_of_segment;  // where a segment's tiles are shared by blocks and must not be mixed with another's;
                         // or 1
  int steps, last_products;  // kStep channels each, the last one of which has so many times kTerms
  int stages;
  int gate_images;  // whose pixels a tile has, at most; 0 without gates
  bool resident;    // all weights of the columns stay in shared memory
  // Offsets in shared memory, in bytes: in a stage, then after the stages, and the size of all.
  int gates, stage_bytes, weights, folded, totals, bytes;
};

template <class Config>
TilePlan make_tile_plan(const PointwiseConvBnActArgs& a) {
  TilePlan p{};
  const bool gated = a.gate != nullptr, means = a.mean != nullptr;
  p.pixels = a.in.pixels();
  // Tiles of one image read one row of gates. Where images are small, too much of their last tiles is empty.
  p.of_images = means || (gated && p.pixels >= 4 * Config::kRows);
  p.segments = p.of_images ? a.in.images : 1;
  p.rows = p.of_images ? p.pixels : a.in.images * p.pixels;
  p.tiles = static_cast<int>(divide_up<int64_t>(p.rows, Config::kRows));
  p.column_blocks = divide_up(a.out_channels, Config::kColumns);
  p.steps = divide_up(a.in.channels, kStep);
  p.last_products = divide_up(a.in.channels - (p.steps - 1) * kStep, kTerms);
  if (gated) {
    const int64_t spanned = (Config::kRows - 1 + p.pixels - 1) / p.pixels + 1;
    p.gate_images = p.of_images ? 1 : static_cast<int>(spanned);
  }

  // Blocks for each block of columns, so that they fill a GPU once.
  const int64_t wanted = larger<int64_t>(1, blocks_to_fill() / 2 * Config::kBlocks / p.column_blocks);
  const int64_t all = p.segments * p.tiles;
  p.parts_of_segment = 1;
  if (means && p.segments < wanted) {
    p.tiles_of_part = static_cast<int>(divide_up<int64_t>(p.tiles, divide_up(wanted, p.segments)));
    p.parts_of_segment = divide_up(p.tiles, p.tiles_of_part);
    p.parts = p.segments * p.parts_of_segment;
  } else if (means) {
    p.tiles_of_part = static_cast<int>(divide_up(p.segments, wanted)) * p.tiles;
    p.parts = divide_up<int64_t>(all, p.tiles_of_part);
  } else {
    // Few tiles one by one: the GPU gives them out as multiprocessors become free.
    p.tiles_of_part = all <= 4 * wanted ? 1 : static_cast<int>(divide_up(all, wanted));
    p.parts = divide_up<int64_t>(all, p.tiles_of_part);
  }

  const int chunk = Config::kColumns * kRowBytes;  // of weights
  const int kept = Config::kColumns * static_cast<int>(sizeof(Folded)) +
                   (means ? Config::kWarpRows * Config::kColumns * static_cast<int>(sizeof(float)) : 0);
  const int gates = p.gate_images * kStep * static_cast<int>(sizeof(float));
  const int pixels = Config::kRows * kRowBytes;
  // All that there is, for weights that many images share; else so much that two blocks fit on an H100's
  // multiprocessor.
  const int64_t limit = means ? device_limits().block_shared_bytes : kMostSharedBytes;
  const auto fitting = [&](int64_t resident, int stage) {
    return static_cast<int>((limit - kept - resident) / stage);
  };
  // Weights that stay are read once, but wait for all of them: not for one tile, and not in the place of
  // stages.
  const int64_t all_weights = int64_t{chunk} * p.steps;
  p.resident = p.tiles_of_part > 1 && fitting(all_weights, pixels + gates) >= 3;
  p.gates = pixels + (p.resident ? 0 : chunk);
  p.stage_bytes = p.gates + gates;
  const int most = fitting(p.resident ? all_weights : 0, p.stage_bytes);
  const int64_t useful = larger<int64_t>(2, int64_t{p.tiles_of_part} * p.steps);
  p.stages = static_cast<int>(smaller<int64_t>(smaller(most, Config::kStages), useful));
  p.weights = p.stages * p.stage_bytes;
  p.folded = p.weights + (p.resident ? static_cast<int>(all_weights) : 0);
  p.totals = p.folded + Config::kColumns * static_cast<int>(sizeof(Folded));
  p.bytes = p.weights + static_cast<int>(p.resident ? all_weights : 0) + kept;
  return p;
}

}  // namespace effkernels::cuda::pointwise
