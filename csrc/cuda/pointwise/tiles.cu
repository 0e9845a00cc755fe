// pointwise_conv_bn_act on tensor cores (mma.sync), elements of 16 bits, on every GPU.
//
// A block takes some tiles of pixels, one after the other, for the same output channels. Pixels, the gates of
// their images and, unless all of them stay in shared memory, weights come in chunks of 64 input channels,
// several of which are on their way (cp.async) while one is multiplied; also those of the next tile, while
// the results of a tile are normalised, activated and written.
//
// Rows of shared memory are 128 bytes. Their 16-byte vectors are swapped by a key of the row, so that the
// eight rows that a load of matrices reads lie in different banks.

#include "cuda/common/pool.cuh"
#include "cuda/pointwise/kernels.h"
#include "cuda/pointwise/tile_plan.cuh"

namespace effkernels::cuda::pointwise {
namespace {

EFFKERNELS_DEVICE int pixel_key(int row) { return row % 8; }
// Column c of the j-th product of a warp's 32 channels is channel 8 * (c / 2) + 2 * j + c % 2: then the sums
// of a lane are those of 8 neighbouring channels, which it stores at once. This is c:
EFFKERNELS_DEVICE int weight_key(int row) { return row / 8 % 4 * 2 + row % 2; }

EFFKERNELS_DEVICE char* at_vector(char* rows, int row, int vector, int key) {
  return rows + row * kRowBytes + (vector ^ key) * 16;
}

// Copies what stages hold: those of a thread are the same vector of every kAtOnce-th row.
template <class T, class Config, bool kGated>
class Copier {
 public:
  static constexpr int kAtOnce = Config::kThreads / kVectors;
  static_assert(kAtOnce % 8 == 0 && Config::kRows % kAtOnce == 0 && Config::kColumns % kAtOnce == 0);

  EFFKERNELS_DEVICE Copier(const PointwiseConvBnActArgs& a, const TilePlan& p, int column, int segment,
                           int tile, int count)
      : a_(a), p_(p), column_(column), segment_(segment), tile_(tile), left_(count) {
    enter();
  }

  // Starts to copy the next step of the block's tiles, if there is one; ends a group in any case.
  EFFKERNELS_DEVICE void next(char* stage) {
    if (left_ > 0) {
      copy_pixels(stage);
      if (!p_.resident) copy_weights(stage + Config::kRows * kRowBytes, step_);
      if constexpr (kGated) copy_gates(stage + p_.gates);
      if (++step_ == p_.steps) {
        step_ = 0;
        if (++tile_ == p_.tiles) {
          tile_ = 0;
          ++segment_;
        }
        if (--left_ > 0) enter();
      }
    }
    end_copy_group();
  }

  // Weights of one step: [kColumns] rows.
  EFFKERNELS_DEVICE void copy_weights(char* to, int step) const {
    const int channel = step * kStep + vector() * 8;
    if (channel >= round_up(a_.in.channels, kTerms)) return;  // what no product reads
    const T* weight = static_cast<const T*>(a_.weight);
    const T* from = weight + static_cast<int64_t>(column_ + row()) * a_.in.channels + channel;
#pragma unroll
    for (int i = 0; i < Config::kColumns; i += kAtOnce) {
      const bool valid = column_ + row() + i < a_.out_channels && channel < a_.in.channels;
      copy_16_bytes(at_vector(to, row() + i, vector(), weight_key(row() + i)),
                    valid ? from + static_cast<int64_t>(i) * a_.in.channels : weight, valid);
    }
  }

 private:
  EFFKERNELS_DEVICE static int vector() { return thread_index() % kVectors; }
  EFFKERNELS_DEVICE static int row() { return thread_index() / kVectors; }

  EFFKERNELS_DEVICE void enter() {
    const int64_t first = int64_t{tile_} * Config::kRows;
    rows_ = static_cast<int>(smaller<int64_t>(Config::kRows, p_.rows - first));
    pixels_ = static_cast<const T*>(a_.x) +
              (segment_ * p_.rows + first + row()) * static_cast<int64_t>(a_.in.channels);
    if constexpr (kGated) image_ = p_.of_images ? segment_ : static_cast<int>(first / p_.pixels);
  }

  EFFKERNELS_DEVICE void copy_pixels(char* to) const {
    const int channel = step_ * kStep + vector() * 8;
    if (channel >= round_up(a_.in.channels, kTerms)) return;
#pragma unroll
    for (int i = 0; i < Config::kRows; i += kAtOnce) {
      const bool valid = row() + i < rows_ && channel < a_.in.channels;
      copy_16_bytes(at_vector(to, row() + i, vector(), pixel_key(row())),
                    valid ? pixels_ + static_cast<int64_t>(i) * a_.in.channels + channel : a_.x, valid);
    }
  }

  // [gate_images][kStep] floats. Zeros behind the last channel: they are multiplied with zeros.
  EFFKERNELS_DEVICE void copy_gates(char* to) const {
    constexpr int kOfImage = kStep / 4;
    for (int i = thread_index(); i < p_.gate_images * kOfImage; i += Config::kThreads) {
      const int channel = step_ * kStep + i % kOfImage * 4, image = image_ + i / kOfImage;
      const bool valid = channel < a_.in.channels && image < a_.in.images;
      const float* from = a_.gate + static_cast<int64_t>(image) * a_.in.channels + channel;
      copy_16_bytes(to + i * 16, valid ? from : a_.gate, valid);
    }
  }

  const PointwiseConvBnActArgs& a_;
  const TilePlan& p_;
  const int column_;
  int segment_, tile_, left_;
  int step_ = 0, rows_ = 0, image_ = 0;
  const T* pixels_ = nullptr;
};

template <class T>
EFFKERNELS_DEVICE uint32_t times(uint32_t pair, const float (&gates)[2]) {
  return narrow_pair<T>(low_of<T>(pair) * gates[0], high_of<T>(pair) * gates[1]);
}

// A warp's part of a tile.
template <class T, class Config, bool kGated>
struct WarpTile {
  static constexpr int kFragments = Config::kFragments, kGroups = Config::kGroups;

  const PointwiseConvBnActArgs& a;
  const TilePlan& p;
  int lane, warp_row, warp_column;
  int image[kFragments][2];  // of this lane's pixels, counted from the first image of the tile
  // Of 16 pixels and 32 channels: of pixels lane / 4 and eight further on this lane's 8 channels. The j-th
  // product has channels 2 * j and 2 * j + 1 of both pixels.
  static constexpr int kSums = 16;
  float sums[kFragments * kGroups * kSums];

  EFFKERNELS_HOST_DEVICE static int at(int fragment, int group, int half, int eighth) {
    return (fragment * kGroups + group) * kSums + eighth / 2 * 4 + half * 2 + eighth % 2;
  }

  EFFKERNELS_DEVICE float (&products_of(int fragment, int group, int j))[2][4] {
    return *reinterpret_cast<float (*)[2][4]>(sums + at(fragment, group, 0, 2 * j));
  }

  // Rows of this lane's pixels in the tile.
  EFFKERNELS_DEVICE int row(int fragment, int half) const {
    return (warp_row * kFragments + fragment) * 16 + half * 8 + lane / 4;
  }
  // The first of this lane's 8 channels of a group, counted from the first of the block.
  EFFKERNELS_DEVICE int channel(int group) const {
    return (warp_column * kGroups + group) * kGroup + lane % 4 * kEight;
  }

  EFFKERNELS_DEVICE void start(int tile) {
#pragma unroll
    for (float& sum : sums) sum = 0.0f;
    if constexpr (kGated) {
      const int64_t pixel = p.of_images ? 0 : int64_t{tile} * Config::kRows % p.pixels;
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // Small images: 32 bits suffice.
          image[m][half] = p.of_images ? 0
                                       : static_cast<int>(static_cast<uint32_t>(pixel + row(m, half)) /
                                                          static_cast<uint32_t>(p.pixels));
        }
      }
    }
  }

  // Adds the products of kTerms channels of a stage.
  EFFKERNELS_DEVICE void multiply(char* stage, char* weights, int product) {
    uint32_t pixels[kFragments][4];
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
      const int named = (warp_row * kFragments + m) * 16 + lane % 16;
      load_matrices(at_vector(stage, named, product * 2 + lane / 16, pixel_key(lane)), pixels[m]);
      if constexpr (kGated) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* gates = reinterpret_cast<const float*>(stage + p.gates) + image[m][half] * kStep +
                               product * kTerms + lane % 4 * 2;
          float first[2], second[2];
          load(gates, true, 2, first);
          load(gates + 8, true, 2, second);
          pixels[m][half] = times<T>(pixels[m][half], first);
          pixels[m][half + 2] = times<T>(pixels[m][half + 2], second);
        }
      }
    }
    // Row lane % 8 of one of two products, and one of two halves of its terms.
    const int key = lane % 8, vector = product * 2 + lane / 8 % 2;
    const int named = key / 2 * kEight + key % 2 + lane / 16 * 2;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        uint32_t factors[4];
        load_matrices(at_vector(weights, (warp_column * kGroups + g) * kGroup + named + j * 2, vector, key),
                      factors);
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          float (&products)[2][4] = products_of(m, g, j);
          multiply_add<T>(pixels[m], factors[0], factors[1], products[0]);
          multiply_add<T>(pixels[m], factors[2], factors[3], products[1]);
        }
      }
    }
  }

  // Normalises, activates and writes the tile's results, of `rows` pixels from row `first` of y on. Adds them
  // up in `totals`, [kWarpRows][kColumns], unless it is null; there are none before, where it is a
  // `new_total`.
  EFFKERNELS_DEVICE void finish(int column, int64_t first, int rows, const Folded* folded, float* totals,
                                bool new_total) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int e = 0; e < kEight; ++e) {
        const Folded norm = folded[channel(g) + e];
#pragma unroll
        for (int i = 0; i < 2 * kFragments; ++i) {
          float& sum = sums[at(i / 2, g, i % 2, e)];
          sum = sum * norm.scale + norm.shift;
        }
      }
    }
    activate(a.activation, sums);
    const int64_t channels = a.out_channels;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const bool inside = column + channel(g) < channels;
      float total[kEight] = {};
#pragma unroll
      for (int i = 0; i < 2 * kFragments; ++i) {
        if (!inside || row(i / 2, i % 2) >= rows) continue;
        const int64_t offset = (first + row(i / 2, i % 2)) * channels + column + channel(g);
        float added[kEight] = {};
        if (a.residual != nullptr) load(static_cast<const T*>(a.residual) + offset, true, kEight, added);
#pragma unroll
        for (int e = 0; e < kEight; ++e) {
          added[e] += sums[at(i / 2, g, i % 2, e)];
          total[e] += added[e];
        }
        if (a.y == nullptr) continue;
        Elements<uint32_t, 4> words;
#pragma unroll
        for (int w = 0; w < 4; ++w) words.at[w] = narrow_pair<T>(added[2 * w], added[2 * w + 1]);
        *reinterpret_cast<Elements<uint32_t, 4>*>(static_cast<T*>(a.y) + offset) = words;
      }
      if (totals == nullptr) continue;
#pragma unroll
      for (int e = 0; e < kEight; ++e) {
        for (int mask = 4; mask < kWarp; mask *= 2) total[e] += shuffle_xor(total[e], mask);
      }
      // Always the same lane's, so nobody has to wait.
      float* own = totals + warp_row * Config::kColumns + channel(g);
      if (lane < 4) {
#pragma unroll
        for (int e = 0; e < kEight; ++e) own[e] = new_total ? total[e] : own[e] + total[e];
      }
    }
  }
};

template <class T, class Config, bool kGated>
EFFKERNELS_KERNEL(Config::kThreads, Config::kBlocks)
pointwise_nhwc_fwd_kernel(const PointwiseConvBnActArgs a, const TilePlan p, float* sums) {
  let_next_launch_begin();
  const int column = static_cast<int>(block_index() % p.column_blocks) * Config::kColumns;
  const int64_t part = block_index() / p.column_blocks;
  // From this tile of this segment on, so many tiles.
  int segment, tile, count;
  if (p.parts_of_segment == 1) {
    const int64_t first = part * p.tiles_of_part;
    segment = static_cast<int>(first / p.tiles);
    tile = static_cast<int>(first - int64_t{segment} * p.tiles);
    count = static_cast<int>(smaller<int64_t>(p.tiles_of_part, p.segments * p.tiles - first));
  } else {
    segment = static_cast<int>(part / p.parts_of_segment);
    tile = static_cast<int>(part - int64_t{segment} * p.parts_of_segment) * p.tiles_of_part;
    count = smaller(p.tiles_of_part, p.tiles - tile);
  }
  char* memory = shared_memory();
  Folded* folded = reinterpret_cast<Folded*>(memory + p.folded);
  float* totals = Config::kMeans && a.mean != nullptr ? reinterpret_cast<float*>(memory + p.totals) : nullptr;

  Copier<T, Config, kGated> copier(a, p, column, segment, tile, count);
  if (p.resident) {
    // In the first group.
    for (int step = 0; step < p.steps; ++step) {
      copier.copy_weights(memory + p.weights + step * Config::kColumns * kRowBytes, step);
    }
  }
  wait_for_previous_launch();
  for (int stage = 0; stage < p.stages - 1; ++stage) copier.next(memory + stage * p.stage_bytes);
  fold_channels(a.norm, column, smaller(Config::kColumns, a.out_channels - column), Config::kColumns, folded);

  const int warp = thread_index() / kWarp;
  WarpTile<T, Config, kGated> own{
      a, p, thread_index() % kWarp, warp % Config::kWarpRows, warp / Config::kWarpRows, {}, {}};
  // With gates, 64 sums leave no registers for what the next product reads.
  [[maybe_unused]] constexpr int kUnrolled =
      kGated && Config::kFragments * Config::kGroups > 3 ? 1 : kStep / kTerms;
  int stage = 0;
  bool new_total = true;
#pragma unroll 1
  for (; count > 0; --count) {
    own.start(tile);
#pragma unroll 1
    for (int step = 0; step < p.steps; ++step) {
      wait_for_copy_groups(p.stages - 2);
      barrier();  // all have their copies, and have multiplied the stage before, which is free
      copier.next(memory + (stage == 0 ? p.stages - 1 : stage - 1) * p.stage_bytes);
      char* pixels = memory + stage * p.stage_bytes;
      char* weights = p.resident ? memory + p.weights + step * Config::kColumns * kRowBytes
                                 : pixels + Config::kRows * kRowBytes;
      const int products = step + 1 < p.steps ? kStep / kTerms : p.last_products;
      if (products == kStep / kTerms) {
#pragma unroll kUnrolled
        for (int product = 0; product < kStep / kTerms; ++product) own.multiply(pixels, weights, product);
      } else {
#pragma unroll 1
        for (int product = 0; product < products; ++product) own.multiply(pixels, weights, product);
      }
      stage = stage + 1 == p.stages ? 0 : stage + 1;
    }
    const int64_t first = int64_t{tile} * Config::kRows;
    own.finish(column, segment * p.rows + first,
               static_cast<int>(smaller<int64_t>(Config::kRows, p.rows - first)), folded, totals, new_total);
    ++tile;
    new_total = tile == p.tiles || count == 1;
    if (new_total && totals != nullptr) {
      barrier();  // before the next tile's totals there is another one
      for (int c = thread_index(); c < smaller(Config::kColumns, a.out_channels - column);
           c += Config::kThreads) {
        float total = 0.0f;
        for (int w = 0; w < Config::kWarpRows; ++w) total += totals[w * Config::kColumns + c];
        if (p.parts_of_segment == 1) {
          a.mean[int64_t{segment} * a.out_channels + column + c] = total / static_cast<float>(p.pixels);
        } else {
          sums[part * a.out_channels + column + c] = total;
        }
      }
    }
    if (tile == p.tiles) {
      tile = 0;
      ++segment;
    }
  }
}

template <class T, class Config>
const char* launch_tiles(const PointwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  const TilePlan p = make_tile_plan<Config>(a);
  const Grid grid{"pointwise_nhwc_fwd", p.parts * p.column_blocks, Config::kThreads, p.bytes};
  const char* error =
      a.gate != nullptr ? launch(pointwise_nhwc_fwd_kernel<T, Config, true>, grid, stream, a, p, workspace)
                        : launch(pointwise_nhwc_fwd_kernel<T, Config, false>, grid, stream, a, p, workspace);
  if (error != nullptr || p.parts_of_segment == 1) return error;
  return mean_of_parts(workspace, a.in.images, p.parts_of_segment, a.out_channels, p.pixels, a.mean, stream);
}

// Calls f with the configuration for these arguments.
template <class F>
auto with_config(const PointwiseConvBnActArgs& a, const F& f) {
  const int64_t pixels = a.in.images * a.in.pixels();
  const auto tiles = [&](auto config) {
    using Config = decltype(config);
    return divide_up<int64_t>(pixels, Config::kRows) * divide_up(a.out_channels, Config::kColumns);
  };
  // Of images with fewer pixels too many gates belong to 128.
  const bool many_gates = a.gate != nullptr && a.in.pixels() < 16;
  if (a.mean != nullptr || many_gates) return f(Low{});
  if (a.out_channels <= Narrow::kColumns) return f(Narrow{});
  if (a.out_channels <= Middle::kColumns) return f(Middle{});
  if (tiles(Square{}) < blocks_to_fill()) return f(Low{});
  const int wide = round_up(a.out_channels, Wide::kColumns),
            square = round_up(a.out_channels, Square::kColumns);
  return wide < square - square / 10 ? f(Wide{}) : f(Square{});
}

}  // namespace

int64_t tiles_workspace(const PointwiseConvBnActArgs& a) {
  return with_config(a, [&](auto config) -> int64_t {
    const TilePlan p = make_tile_plan<decltype(config)>(a);
    return p.parts_of_segment == 1 ? 0 : p.parts * a.out_channels;
  });
}

const char* run_tiles(const PointwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  return with_config(a, [&](auto config) {
    using Config = decltype(config);
    return a.dtype == Dtype::kHalf ? launch_tiles<Half, Config>(a, workspace, stream)
                                   : launch_tiles<BFloat16, Config>(a, workspace, stream);
  });
}

}  // namespace effkernels::cuda::pointwise
