// conv_bn_act for the stems of networks, on tensor cores: 3x3 of stride 2 from three channels, from NCHW or
// NHWC images, bytes too, to NHWC.
//
// A block takes a tile of rows of one image. The rows under it are copied to shared memory, in 16 bits, and
// zeros for padding; from there the tensor cores' operands are read 4 bytes at a time, without a matrix of
// windows between: terms may come in any order that both operands agree on, so two consecutive ones are two
// neighbouring elements of shared memory. Those that begin a word before a window, or end one after it, have
// a weight of 0, and are zeros themselves: NaN there would not be.
//   NCHW: (channel, row, 4 columns): 36 terms of 40
//   NHWC: (row, 10 elements): 30 terms of 32
// The columns of the weights lie such that a lane's sums are neighbouring channels: it writes up to 16 bytes
// a pixel.
//
// An H100 reads and writes at 84 % (NCHW), 91 % (NHWC) and 71 % (bytes) of its copy bandwidth so, with the
// stem of B0. Prologue of each block: the weights, a copy of 27 for each channel, and BatchNorm's fold.

#include "cuda/stem_conv_bn_act.h"

#include <type_traits>

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kImageChannels = 3, kKernel = 3, kStride = 2;
constexpr int kTaps = kKernel * kKernel, kTerms = kTaps * kImageChannels;
// A tensor-core product is of 16 pixels and a tile of 8 channels; four tiles are written together.
constexpr int kPixels = 16, kTile = 8, kTogether = 4;
// Columns of the image that are copied before the one at which a tile's windows would begin without padding:
// a multiple of what is copied at once. The padding on the left must be less (see takes_stem).
constexpr int kBefore = 8;
// Rows of a tile, and columns. 4 rows took 5 % longer with B0, 16 took 1 %; wide images have no room for 8.
constexpr int kMostRows = 8, kMostColumns = 320;
constexpr int64_t kTileBytes = 36 * 1024;

// How a call is cut into blocks.
struct Plan {
  int tile_rows, tile_columns, tiles_down, tiles_across;
  int in_rows, in_columns;           // of the image under a tile
  int pitch, plane;                  // elements of shared memory from row to row, and from channel to channel
  int together;                      // elements of the image that may be read at once
  int last_columns;                  // of the last tile across
  uint32_t fraction, last_fraction;  // 2^32 / tile_columns and / last_columns, rounded up: to divide by them
  int weights, folded;               // offsets in shared memory, in bytes
  int64_t bytes;
};

// Elements of an image's row between neighbouring pixels.
template <bool kPlanar>
constexpr int kUnit = kPlanar ? 1 : kImageChannels;

// A word of an operand: two neighbouring elements, by their places in the window. There are kWords in a row
// of the window, of one channel or of all.
template <bool kPlanar>
struct Word {
  static constexpr int kWords = kPlanar ? 2 : 5, kRows = kPlanar ? kImageChannels * kKernel : kKernel;
  int row, first;  // of (channel, row) or of rows; the elements are `first` and the next

  // Whether all elements of an operand's register `r` are in the window, in every lane.
  EFFKERNELS_DEVICE static bool whole(int r) { return kPlanar && r < 4 && r % 2 == 1; }

  // Of an operand's register `r` in a lane: NCHW has the two words of a row in turns, the one that is whole
  // after the other, and one row more in the last register.
  EFFKERNELS_DEVICE static Word of(int r, int lane, int odd) {
    const int quarter = lane % 4;
    if (!kPlanar) {
      const int word = 4 * quarter + r;
      return {word / kWords, word % kWords * 2};
    }
    return r < 4 ? Word{r / 2 * 4 + quarter, (r + 1 + odd) % 2 * 2} : Word{kRows - 1, quarter * 2};
  }

  // Where the element `e` is in a row of the window, or that it is beside it. With odd padding on the left
  // windows begin in the middle of a word.
  EFFKERNELS_DEVICE int at(int e, int odd) const { return first + e - odd; }
  EFFKERNELS_DEVICE bool inside(int e, int odd) const {
    return at(e, odd) >= 0 && at(e, odd) < kKernel * kUnit<kPlanar>;
  }

  // Bits of the elements that are in a row of the window. None of a word of no row: it has weights of 0, with
  // which an infinite element would be NaN.
  EFFKERNELS_DEVICE uint32_t mask(int odd) const {
    if (row >= kRows) return 0;
    return (inside(0, odd) ? 0xffffu : 0u) | (inside(1, odd) ? 0xffff0000u : 0u);
  }

  // The weight of the element `e`, from those of a channel in the order (channel, row, column).
  template <class T>
  EFFKERNELS_DEVICE uint32_t weight(const T* weights, int e, int odd) const {
    if (row >= kRows || !inside(e, odd)) return 0;
    const int i = at(e, odd);
    const int planar = row * kKernel + i,
              other = i % kImageChannels * kTaps + row * kKernel + i / kImageChannels;
    return weights[kPlanar ? planar : other].bits;
  }

  // Where it is in shared memory, in elements. Words of no row are read where another one is.
  EFFKERNELS_DEVICE int offset(const Plan& p) const {
    const int there = smaller(row, kRows - 1), at = row < kRows && first < 2 * kWords ? first : 0;
    if (!kPlanar) return there * p.pitch + at;
    return there / kKernel * p.plane + there % kKernel * p.pitch + at;
  }
};

// The channel in column `n` of the tile `tile` of `tiles`.
EFFKERNELS_DEVICE int channel_of(int tiles, int tile, int n) {
  const int group = tile / kTogether, wide = smaller(kTogether, tiles - group * kTogether);
  return group * kTogether * kTile + n / 2 * 2 * wide + tile % kTogether * 2 + n % 2;
}

// What is under a tile.
struct Under {
  int64_t image;
  int row, column;  // the first in shared memory; may be padding
};

// Calls copy(to, from, valid, channel) for kWide elements at a time, a warp for each row; `channel` is
// that of the first.
template <int kWide, bool kPlanar, class X, class Copy>
EFFKERNELS_DEVICE void for_image(const ConvBnActArgs& a, const Plan& p, const Under& under,
                                 const Copy& copy) {
  constexpr int kPlanes = kPlanar ? kImageChannels : 1;
  const int count = p.in_columns * kUnit<kPlanar> / kWide, line = a.in.width * kUnit<kPlanar>;
  const int first = under.column * kUnit<kPlanar>;
  const X* image = static_cast<const X*>(a.x) + under.image * a.in.height * a.in.width * kImageChannels;
  for (int r = thread_index() / kWarp; r < kPlanes * p.in_rows; r += kWarps) {
    const int channel = r / p.in_rows, row = r - channel * p.in_rows, h = under.row + row;
    const X* from = image + (static_cast<int64_t>(channel) * a.in.height + h) * line + first;
    const bool there = h >= 0 && h < a.in.height;
    const int to = channel * p.plane + row * p.pitch;
#pragma unroll 2
    for (int i = thread_index() % kWarp; i < count; i += kWarp) {
      const int at = first + i * kWide;
      const bool valid = there && at >= 0 && at < line;
      copy(to + i * kWide, valid ? from + i * kWide : static_cast<const X*>(a.x), valid,
           kPlanar ? channel : i * kWide % kImageChannels);
    }
  }
}

// Converts images whose elements are of another type than the result, are to be normalised, or cannot be
// copied 16 bytes at a time.
template <int kWide, bool kPlanar, class X, class T>
EFFKERNELS_DEVICE void convert_image(const ConvBnActArgs& a, const Plan& p, const Under& under, T* pixels) {
  float mean[kImageChannels], factor[kImageChannels];
#pragma unroll
  for (int c = 0; c < kImageChannels; ++c) {
    mean[c] = parameter_or(a.image_mean, c, 0.0f);
    factor[c] = 1.0f / parameter_or(a.image_std, c, 1.0f);
  }
  for_image<kWide, kPlanar, X>(a, p, under, [&](int to, const X* from, bool valid, int channel) {
    float x[kWide] = {};
    if (valid) {
      load(from, true, kWide, x);
#pragma unroll
      for (int e = 0; e < kWide; ++e) {
        const int c = kPlanar ? channel : (channel + e) % kImageChannels;
        x[e] = (x[e] - (c == 0   ? mean[0]
                        : c == 1 ? mean[1]
                                 : mean[2])) *
               (c == 0   ? factor[0]
                : c == 1 ? factor[1]
                         : factor[2]);
      }
    }
    store(pixels + to, true, kWide, x);
  });
}

template <bool kPlanar, class X, class T>
EFFKERNELS_DEVICE void convert_image(const ConvBnActArgs& a, const Plan& p, const Under& under, T* pixels) {
  if (p.together >= 4) return convert_image<4, kPlanar, X>(a, p, under, pixels);
  convert_image<1, kPlanar, X>(a, p, under, pixels);
}

template <bool kPlanar, class T>
EFFKERNELS_DEVICE void copy_image(const ConvBnActArgs& a, const Plan& p, const Under& under, T* pixels) {
  if (a.bytes) return convert_image<kPlanar, uint8_t>(a, p, under, pixels);
  if (p.together < kVector<T> || a.image_mean.data != nullptr) {
    return convert_image<kPlanar, T>(a, p, under, pixels);
  }
  for_image<kVector<T>, kPlanar, T>(
      a, p, under, [&](int to, const T* from, bool valid, int) { copy_16_bytes(pixels + to, from, valid); });
}

// [channel][term], and zeros beyond the last channel.
template <class T>
EFFKERNELS_DEVICE void copy_weights(const ConvBnActArgs& a, int channels, T* weights) {
  for (int i = thread_index(); i < channels * kTerms; i += kThreads) {
    const int channel = i / kTerms, term = i - channel * kTerms;
    const int in = term / kTaps, row = term % kTaps / kKernel, column = term % kKernel;
    const int64_t at = channel * a.weight_strides[0] + in * a.weight_strides[1] + row * a.weight_strides[2] +
                       column * a.weight_strides[3];
    weights[i] = channel < a.out.channels ? static_cast<const T*>(a.weight)[at] : T{};
  }
}

// The sums of 16 pixels and a tile of 8 channels, from the words of both operands.
template <class T, bool kPlanar, int kRegisters>
EFFKERNELS_DEVICE void multiply(const uint32_t (&pixels)[2][kRegisters],
                                const uint32_t (&weights)[kRegisters], float (&sums)[4]) {
#pragma unroll
  for (int r = 0; r < 4; r += 2) {
    const uint32_t operand[4] = {pixels[0][r], pixels[1][r], pixels[0][r + 1], pixels[1][r + 1]};
    multiply_add<T>(operand, weights[r], weights[r + 1], sums);
  }
  if constexpr (kPlanar) {
    const uint32_t operand[2] = {pixels[0][4], pixels[1][4]};
    multiply_add(T{}, operand, weights[4], sums, sums);
  }
}

// Three blocks of 256 threads where there are 80 registers for each; more channels take two.
template <int kTiles>
constexpr int kBlocks = kTiles > 4 ? 2 : 3;

template <class T, bool kPlanar, int kTiles>
EFFKERNELS_KERNEL(kThreads, kBlocks<kTiles>)
stem_nhwc_fwd_kernel(const ConvBnActArgs a, const Plan p) {
  constexpr int kRegisters = kPlanar ? 5 : 4, kChannels = kTiles * kTile;
  using Word = Word<kPlanar>;
  const int tiles = p.tiles_down * p.tiles_across;
  const int64_t image = block_index() / tiles;
  const int tile = static_cast<int>(block_index() - image * tiles);
  const int out_row = tile / p.tiles_across * p.tile_rows;
  const int out_column = tile % p.tiles_across * p.tile_columns;
  const int rows = smaller(p.tile_rows, a.out.height - out_row);

  T* pixels = reinterpret_cast<T*>(shared_memory());  // [in_rows][pitch], of NCHW for each channel
  T* weights = reinterpret_cast<T*>(shared_memory() + p.weights);
  Folded* folded = reinterpret_cast<Folded*>(shared_memory() + p.folded);
  let_next_launch_begin();
  wait_for_previous_launch();
  const Under under{image, out_row * kStride - a.window.top, out_column * kStride - kBefore};
  copy_image<kPlanar>(a, p, under, pixels);
  copy_weights(a, kChannels, weights);
  fold_channels(a.norm, 0, a.out.channels, kChannels, folded);
  barrier();

  const int lane = thread_index() % kWarp, odd = a.window.left % 2;
  // Where the lane's words are, in bytes from its pixel on, and which of their elements are in a window.
  int offset[kRegisters];
  uint32_t mask[kRegisters], factors[kTiles][kRegisters];
#pragma unroll
  for (int r = 0; r < kRegisters; ++r) {
    const Word word = Word::of(r, lane, odd);
    offset[r] = (word.offset(p) + (kBefore - a.window.left) * kUnit<kPlanar> - odd) * 2;
    mask[r] = word.mask(odd);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const T* of_channel = weights + channel_of(kTiles, j, lane / 4) * kTerms;
      factors[j][r] = word.weight(of_channel, 0, odd) | word.weight(of_channel, 1, odd) << 16;
    }
  }
  wait_for_copies();
  barrier();

  const bool silu = a.activation == Activation::kSilu;  // asked first: one comparison
  const bool last = out_column + p.tile_columns >= a.out.width;
  const int columns = last ? p.last_columns : p.tile_columns, count = rows * columns;
  const uint32_t fraction = last ? p.last_fraction : p.fraction;
  // Bytes from a pixel's words to those of the next, and how many more where that begins a row.
  const int step = kUnit<kPlanar> * kStride * 2, down = p.pitch * kStride * 2 - columns * step;
  // The same of results.
  const uint32_t pixel_bytes = a.out.channels * 2, skip_bytes = (a.out.width - columns) * pixel_bytes;
  const int own = lane % 4 * 2;
  char* y = static_cast<char*>(a.y) +
            ((image * a.out.height + out_row) * a.out.width + out_column) * a.out.channels * 2;
#pragma unroll 1
  for (int first = thread_index() / kWarp * kPixels; first < count; first += kWarps * kPixels) {
    uint32_t words[2][kRegisters];
    uint32_t to[2];  // where its results go, in bytes from y on
    bool there[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int pixel = smaller(first + m * 8 + lane / 4, count - 1);
      const auto row = static_cast<int>(high_of_product(static_cast<uint32_t>(pixel), fraction));
      const int at = row * down + pixel * step;
#pragma unroll
      for (int r = 0; r < kRegisters; ++r) {
        words[m][r] = *reinterpret_cast<const uint32_t*>(shared_memory() + (at + offset[r]));
        if (!Word::whole(r)) words[m][r] &= mask[r];
      }
      to[m] = row * skip_bytes + pixel * pixel_bytes;
      there[m] = first + m * 8 + lane / 4 < count;
    }
#pragma unroll
    for (int group = 0; group < kTiles; group += kTogether) {
      constexpr int kLast = kTiles % kTogether;
      const auto compute = [&](auto wide) {
        constexpr int kWide = decltype(wide)::value;
        const int channel = group * kTile + own * kWide;
        float results[4 * kWide];  // of both pixels
#pragma unroll
        for (int t = 0; t < kWide; ++t) {
          float sums[4] = {};
          multiply<T, kPlanar>(words, factors[group + t], sums);
          // Read again for each 16 pixels: there are no registers left for them.
          float norm[4];  // scale and shift of two channels
          load(reinterpret_cast<const float*>(folded + channel + 2 * t), true, 4, norm);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            results[i / 2 * 2 * kWide + 2 * t + i % 2] = sums[i] * norm[i % 2 * 2] + norm[i % 2 * 2 + 1];
          }
        }
        if (silu) {
          effkernels::cuda::silu(results);
        } else {
          activate(a.activation, results);
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const float* of_pixel = results + m * 2 * kWide;
          uint32_t pairs[kWide];
#pragma unroll
          for (int i = 0; i < kWide; ++i) pairs[i] = narrow_pair<T>(of_pixel[2 * i], of_pixel[2 * i + 1]);
          store_where(there[m] && channel < a.out.channels, y + to[m] + channel * 2, pairs);
        }
      };
      if (kTiles - group >= kTogether) {
        compute(std::integral_constant<int, kTogether>{});
      } else {
        compute(std::integral_constant<int, kLast == 0 ? kTogether : kLast>{});
      }
    }
  }
}

// Of elements that may be read at once from an image's rows.
int together(const ConvBnActArgs& a) {
  const int size = a.bytes ? 1 : 2;
  const auto address = reinterpret_cast<uintptr_t>(a.x);
  for (const int count : {8, 4}) {
    if (a.in.width % count == 0 && address % (count * size) == 0) return count;
  }
  return 1;
}

// Columns of the result in a tile. Tiles are of the same size, and their first columns lie aligned in the
// image.
int tile_columns(int width) { return round_up(divide_up(width, divide_up(width, kMostColumns)), 4); }

// The same of the last tile across.
int last_columns(int width) { return (width - 1) % tile_columns(width) + 1; }

// 2^32 / count, rounded up; for count > 1.
uint32_t fraction_of(int count) { return static_cast<uint32_t>(((uint64_t{1} << 32) + count - 1) / count); }

// Tiles of so many rows.
Plan make_plan(const ConvBnActArgs& a, int rows, int channels) {
  Plan p;
  p.tile_rows = smaller(rows, a.out.height);
  p.tile_columns = tile_columns(a.out.width);
  p.tiles_across = divide_up(a.out.width, p.tile_columns);
  p.tiles_down = divide_up(a.out.height, p.tile_rows);
  p.in_rows = (p.tile_rows - 1) * kStride + kKernel;
  p.in_columns = round_up(kBefore + p.tile_columns * kStride + 2, 8);
  p.together = together(a);
  p.last_columns = last_columns(a.out.width);
  p.fraction = fraction_of(p.tile_columns);
  p.last_fraction = fraction_of(p.last_columns);
  // The words of a product's 32 lanes are to lie in 32 banks: of eight pixels in turn, and of four rows.
  p.pitch = p.in_columns * (a.planar ? 1 : kImageChannels);
  while (a.planar && p.pitch / 2 % 32 != 8) p.pitch += 8;
  p.plane = a.planar ? p.in_rows * p.pitch : 0;
  while (a.planar && p.plane / 2 % 32 != 24) p.plane += 8;
  p.weights = (a.planar ? kImageChannels * p.plane : p.in_rows * p.pitch) * 2;
  p.folded = round_up(p.weights + channels * kTerms * 2, 16);
  p.bytes = p.folded + channels * static_cast<int64_t>(sizeof(Folded));
  return p;
}

template <class T, bool kPlanar, int kTiles>
const char* launch_stem(const ConvBnActArgs& a, const Stream& stream) {
  int rows = kMostRows;
  while (rows > 1 && make_plan(a, rows, kTiles * kTile).bytes > kTileBytes) rows /= 2;
  const Plan p = make_plan(a, rows, kTiles * kTile);
  const Grid grid{"stem_nhwc_fwd", a.out.images * p.tiles_down * p.tiles_across, kThreads, p.bytes};
  return launch(stem_nhwc_fwd_kernel<T, kPlanar, kTiles>, grid, stream, a, p);
}

// 32 channels, as B0 to B2 have; 48, as B4 and B5, and B3's 40; 64, as B7, and B6's 56. What is left over is
// multiplied with zeros.
template <class T, bool kPlanar>
const char* with_tiles(const ConvBnActArgs& a, const Stream& stream) {
  if (a.out.channels <= 32) return launch_stem<T, kPlanar, 4>(a, stream);
  if (a.out.channels <= 48) return launch_stem<T, kPlanar, 6>(a, stream);
  return launch_stem<T, kPlanar, 8>(a, stream);
}

template <class T>
const char* with_layout(const ConvBnActArgs& a, const Stream& stream) {
  return a.planar ? with_tiles<T, true>(a, stream) : with_tiles<T, false>(a, stream);
}

}  // namespace

bool takes_stem(const ConvBnActArgs& a) {
  const Window& w = a.window;
  return a.dtype != Dtype::kFloat && a.in.channels == kImageChannels && w.kernel_h == kKernel &&
         w.kernel_w == kKernel && w.stride_h == kStride && w.stride_w == kStride && w.dilation_h == 1 &&
         w.dilation_w == 1 && w.left < kBefore && a.out.channels <= 64 &&
         a.out.width < INT32_MAX / kMostRows / 64 &&  // bytes of a tile's results are counted in 32 bits
         last_columns(a.out.width) > 1 &&             // for fraction_of
         aligned<Half, kTile>(a.y, a.out.channels);
}

const char* stem_conv_bn_act(const ConvBnActArgs& a, const Stream& stream) {
  return a.dtype == Dtype::kHalf ? with_layout<Half>(a, stream) : with_layout<BFloat16>(a, stream);
}

}  // namespace effkernels::cuda
