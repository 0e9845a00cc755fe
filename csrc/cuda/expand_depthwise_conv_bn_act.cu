// expand_depthwise_conv_bn_act(_pool): a 1x1 convolution and the depthwise one behind it in one kernel, in
// float16 and bfloat16. The expanded map, the largest of a network's block, is never in memory.
//
// A block takes a tile of pixels of one image. It keeps what is under the tile in shared memory, and goes
// through the expanded channels in chunks: it multiplies on the tensor cores, writes the normalised and
// activated sums to shared memory, rounded as they would be in memory, and convolves from there. While it
// convolves, the weights of the next chunk are copied.

#include "cuda/expand_depthwise_conv_bn_act.h"

#include <type_traits>

#include "cuda/common/depthwise_tiles.cuh"
#include "cuda/common/pool.cuh"

namespace effkernels::cuda {
namespace {

using namespace depthwise_tiles;

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
// A warp computes 2 x 2 tensor-core products at a time, so that each value read from shared memory is used
// twice. One product sums kTerms terms.
constexpr int kPixels = 32, kChannels = 16, kTerms = 16;
// Elements of padding behind each row of shared memory. Rows are multiples of 32 bytes; with these 16 more,
// the same 16 bytes of eight rows lie in 32 different banks.
constexpr int kGap = 8;
// Shared memory of a block, at most. On an A100 (164 KB a multiprocessor) and its successors two blocks fit
// beside what the system reserves; on all other GPUs one does.
constexpr int64_t kTileBytes = 80 * 1024;
constexpr int kMostColumns = 32;
static_assert(kTileBytes <= kMostSharedBytes);

// How one call is cut into blocks.
struct Blocks {
  Plan plan;
  int terms;            // input channels, with zeros up to whole products
  int pixels;           // of x under a tile, at most: none for padding
  int shares;           // blocks of a tile, which share its channels
  int chunks_of_share;  // at most
  bool weight_vectors;  // whether weights may be read 16 bytes at a time
  // Offsets of the parts of shared memory, in bytes, and the size of all.
  int expanded, weights, taps, expand_norm, norm, places, totals, bytes;

  EFFKERNELS_HOST_DEVICE int row() const { return terms + kGap; }
  EFFKERNELS_HOST_DEVICE int expanded_row() const { return plan.chunk + kGap; }
};

template <class T>
EFFKERNELS_DEVICE T* shared_at(int byte) {
  return reinterpret_cast<T*>(shared_memory() + byte);
}

// Copies rows of `elements` elements, with zeros up to `b.terms`, to rows of b.row(). There are lines of
// `columns` rows without gaps, `line` elements apart, and only the first `there` columns of each; the rest is
// zeros.
template <class T>
EFFKERNELS_DEVICE void copy_rows(const Blocks& b, const T* from, bool vectors, int elements, int64_t line,
                                 int lines, int columns, int there, T* to) {
  const auto row_at = [&](int i, int column) {
    return from + i * line + static_cast<int64_t>(column) * elements;
  };
  if (vectors) {
    for_elements<kVector<T>>(lines, columns, b.terms, [&](int i, int column, int e) {
      const bool valid = column < there && e < elements;
      copy_16_bytes(to + (i * columns + column) * b.row() + e, valid ? row_at(i, column) + e : from, valid);
    });
  } else {
    for_elements<1>(lines, columns, b.terms, [&](int i, int column, int e) {
      const bool valid = column < there && e < elements;
      to[(i * columns + column) * b.row() + e] = valid ? row_at(i, column)[e] : T{};
    });
  }
}

// act(norm(x * weights)) of so many pixels and a chunk of channels: each warp takes kPixels pixels of
// kChannels channels at a time. Pixels go to their places.
template <class T>
EFFKERNELS_DEVICE void expand(const Blocks& b, Activation activation, int pixels, const T* x, T* expanded) {
  const T* weights = shared_at<T>(b.weights);
  const Folded* folded = shared_at<Folded>(b.expand_norm);
  const int* places = shared_at<int>(b.places);
  const int lane = thread_index() % kWarp, strips = divide_up(pixels, kPixels);
  // Of a product's sums, a lane has two neighbouring channels of two pixels, eight apart.
  const int own_pixel = lane / 4, own_channel = lane % 4 * 2;
#pragma unroll 1
  for (int item = thread_index() / kWarp; item < strips * (b.plan.chunk / kChannels); item += kWarps) {
    const int first = item % strips * kPixels, channel = item / strips * kChannels;
    // The rows that this lane names: of 16 pixels first the left halves, of 8 channels both halves in turns.
    // Results of a strip beyond the last pixel are not stored.
    const T* pixel[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      pixel[m] = x + smaller(first + m * 16 + lane % 16, pixels - 1) * b.row() + lane / 16 * 8;
    }
    const T* weight = weights + (channel + lane / 16 * 8 + lane % 8) * b.row() + lane / 8 % 2 * 8;
    float sums[2][2][4] = {};
#pragma unroll 1
    for (int term = 0; term < b.terms; term += kTerms) {
      uint32_t factors[4], of_pixels[2][4];
      load_matrices(weight + term, factors);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        load_matrices(pixel[m] + term, of_pixels[m]);
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          multiply_add<T>(of_pixels[m], factors[2 * n], factors[2 * n + 1], sums[m][n]);
        }
      }
    }
    Folded norm[2][kPair];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < kPair; ++e) norm[n][e] = folded[channel + n * 8 + own_channel + e];
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      float results[4 * kPair];  // of two pixels
#pragma unroll
      for (int i = 0; i < 4 * kPair; ++i) {
        const int half = i / (2 * kPair), n = i / kPair % 2, e = i % kPair;
        results[i] = sums[m][n][2 * half + e] * norm[n][e].scale + norm[n][e].shift;
      }
      activate(activation, results);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place = places[first + m * 16 + half * 8 + own_pixel];
        if (place < 0) continue;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const float result[kPair] = {results[(half * 2 + n) * kPair], results[(half * 2 + n) * kPair + 1]};
          store(expanded + place + channel + n * 8 + own_channel, true, kPair, result);
        }
      }
    }
  }
}

template <class T, class Traits>
EFFKERNELS_KERNEL(kThreads, 2)
expand_depthwise_nhwc_fwd_kernel(const ExpandDepthwiseConvBnActArgs a, const Blocks b, float* sums) {
  const DepthwiseConvBnActArgs& d = a.depthwise;
  const Plan& p = b.plan;
  const int first_chunk = static_cast<int>(block_index() % b.shares) * b.chunks_of_share;
  const int last_chunk = smaller(first_chunk + b.chunks_of_share, p.chunks);
  const Tile tile = tile_of(p, d.window, block_index() / b.shares);
  // The part of the image that is under the tile.
  const int row = larger(tile.in_row, 0), rows = smaller(tile.in_row + p.in_rows, d.in.height) - row;
  const int column = larger(tile.in_column, 0),
            columns = smaller(tile.in_column + p.in_columns, d.in.width) - column;
  const int pixels = rows > 0 && columns > 0 ? rows * columns : 0;

  T* x = shared_at<T>(0);                  // [pixels][row]
  T* expanded = shared_at<T>(b.expanded);  // [in_rows][in_columns][expanded_row]
  T* weights = shared_at<T>(b.weights);    // [chunk][row]
  float* taps = shared_at<float>(b.taps);  // [taps][chunk]
  Folded *expand_norm = shared_at<Folded>(b.expand_norm), *norm = shared_at<Folded>(b.norm);  // [chunk]
  // Where pixels of x go in `expanded`; below 0 for what fills the last strip.
  int* places = shared_at<int>(b.places);

  const auto channels_from = [&](int channel) { return smaller(p.chunk, d.in.channels - channel); };
  const auto copy_weights = [&](int channel) {
    const T* from = static_cast<const T*>(a.expand_weight) + static_cast<int64_t>(channel) * a.in_channels;
    copy_rows(b, from, b.weight_vectors, a.in_channels, 0, 1, p.chunk, channels_from(channel), weights);
    fold_channels(a.expand_norm, channel, channels_from(channel), p.chunk, expand_norm);
  };
  if (pixels > 0) {
    const int64_t line = static_cast<int64_t>(d.in.width) * a.in_channels;
    const T* corner = static_cast<const T*>(d.x) + (tile.image * d.in.height + row) * line +
                      static_cast<int64_t>(column) * a.in_channels;
    copy_rows(b, corner, p.vectors, a.in_channels, line, rows, columns, columns, x);
  }
  copy_weights(first_chunk * p.chunk);
  for (int i = thread_index(); i < round_up(pixels, kPixels); i += kThreads) {
    const int h = row - tile.in_row + i / larger(columns, 1),
              w = column - tile.in_column + i % larger(columns, 1);
    places[i] = i < pixels ? (h * p.in_columns + w) * b.expanded_row() : -1;
  }
  // Padding is zeros for all chunks.
  if (pixels < p.in_rows * p.in_columns) {
    auto* zeros = reinterpret_cast<Elements<T, kVector<T>>*>(expanded);
    const int count = p.in_rows * p.in_columns * b.expanded_row() / kVector<T>;
    for (int i = thread_index(); i < count; i += kThreads) zeros[i] = {};
  }
  wait_for_copies();
  barrier();

  const Lane lane = Lane::of(p.chunk);
#pragma unroll 1
  for (int chunk = first_chunk; chunk < last_chunk; ++chunk) {
    const int channel = chunk * p.chunk, channels = channels_from(channel);
    const T* weight = static_cast<const T*>(d.weight) + static_cast<int64_t>(channel) * Traits::kTaps;
    stage_weights<Traits::kTaps>(weight, channels, p.chunk, taps);
    fold_channels(d.norm, channel, channels, p.chunk, norm);
    expand<T>(b, d.activation, pixels, x, expanded);
    barrier();
    if (chunk + 1 < last_chunk) copy_weights(channel + p.chunk);
    float total[kPair] = {};
    compute_patches<Traits>(d, p, tile, Staged<T>{expanded, b.expanded_row(), taps, norm, channel, channels},
                            lane, total);
    wait_for_copies();
    if (sums != nullptr) {
      add_groups(total, lane.group, lane.groups, lane.index, p.chunk, channels, shared_at<float>(b.totals),
                 sums + (tile.image * p.tiles() + tile.index) * d.out.channels + channel);
    } else {
      barrier();
    }
  }
}

// Where things are in shared memory.
template <class T, class Traits>
void lay_out(Blocks& b) {
  const Plan& p = b.plan;
  int end = 0;
  const auto take = [&end](int bytes) {
    const int at = end;
    end = round_up(end + bytes, 16);
    return at;
  };
  const int size = sizeof(T);
  take(b.pixels * b.row() * size);
  b.expanded = take(p.in_rows * p.in_columns * b.expanded_row() * size);
  b.weights = take(p.chunk * b.row() * size);
  b.taps = take(Traits::kTaps * p.chunk * static_cast<int>(sizeof(float)));
  b.expand_norm = take(p.chunk * static_cast<int>(sizeof(Folded)));
  b.norm = take(p.chunk * static_cast<int>(sizeof(Folded)));
  b.places = take(round_up(b.pixels, kPixels) * static_cast<int>(sizeof(int)));
  b.totals = take(kThreads * kPair * static_cast<int>(sizeof(float)));
  b.bytes = end;
}

// Cuts into tiles of so many columns and as many rows as there is room for, or into none.
template <class T, class Traits>
bool cut(const ExpandDepthwiseConvBnActArgs& a, int columns, Blocks& b) {
  const DepthwiseConvBnActArgs& d = a.depthwise;
  Plan& p = b.plan;
  p.cut<Traits>(d.out, Traits::kRows, columns);
  // Of tiles without rows; then what a row adds, in the image and, beyond it, in padding.
  b.pixels = p.in_rows = 0;
  lay_out<T, Traits>(b);
  const int64_t room = kTileBytes - b.bytes - kPixels * static_cast<int64_t>(sizeof(int));
  const int64_t of_padding = int64_t{p.in_columns} * b.expanded_row() * sizeof(T);
  const int64_t of_image = smaller(p.in_columns, d.in.width) * (b.row() * sizeof(T) + sizeof(int));
  const int64_t in_rows =
      larger(room / (of_padding + of_image), (room - d.in.height * of_image) / of_padding);
  if (in_rows < Traits::kInRows) return false;
  int rows = static_cast<int>(in_rows - Traits::kKernel) / Traits::kStride + 1;
  rows = smaller(rows / Traits::kRows * Traits::kRows, round_up(d.out.height, Traits::kRows));
  // Tiles of the same size.
  const int down = divide_up(d.out.height, rows), across = p.tiles_across;
  p.cut<Traits>(d.out, round_up(divide_up(d.out.height, down), Traits::kRows),
                round_up(divide_up(d.out.width, across), Traits::kColumns));
  b.pixels = smaller(p.in_rows, d.in.height) * smaller(p.in_columns, d.in.width);
  lay_out<T, Traits>(b);
  return true;
}

// What a call takes, in halves of a warp's instructions: counted, not measured. Of the time in which warps
// have nothing left to do before a barrier, the other block of the multiprocessor uses half.
template <class Traits>
int64_t count_instructions(const Blocks& b) {
  // Of kPixels x kChannels sums, whose special functions (two for SiLU) take longer than their instructions
  // do; and of a product of kTerms of their terms.
  constexpr int64_t kItem = 256, kProduct = 8;
  constexpr int kOutputs = Traits::kRows * Traits::kColumns;
  // Loads and conversions of pairs; multiplications; norm, activation and store.
  constexpr int64_t kPatch =
      3 * Traits::kInRows * Traits::kInColumns + 2 * Traits::kTaps * kOutputs + 18 * kOutputs;
  constexpr int64_t kChunk = 400, kBlock = 2000;  // what each warp waits for in each
  const Plan& p = b.plan;
  const int items = divide_up(b.pixels, kPixels) * (p.chunk / kChannels);
  const int patches = p.tile_rows * p.tile_columns / kOutputs, pairs = p.chunk / kPair;
  const int64_t expanding = (round_up(items, kWarps) + items) * (kItem + b.terms / kTerms * kProduct);
  const int64_t convolving =
      (divide_up(patches, kThreads / pairs) * kWarps + divide_up(patches * pairs, kWarp)) * kPatch;
  return p.tiles() * (p.chunks * (expanding + convolving + kWarps * kChunk) + kWarps * kBlock);
}

// The tiles and chunks of the fewest instructions: large tiles compute less of what is under their neighbours
// too. Some fit always: of 4 columns and 128 input channels 12 rows do.
template <class T, class Traits>
Blocks make_blocks(const ExpandDepthwiseConvBnActArgs& a) {
  const DepthwiseConvBnActArgs& d = a.depthwise;
  const int most = smaller(kMostColumns, round_up(d.out.width, Traits::kColumns));
  Blocks best{};
  int64_t least = INT64_MAX;
  for (const int chunk : {48, 64, 32}) {
    for (int columns = Traits::kColumns; columns <= most; columns += Traits::kColumns) {
      Blocks b{};
      b.terms = round_up(a.in_channels, kTerms);
      b.plan.chunk = chunk;
      b.plan.chunks = divide_up(d.in.channels, chunk);
      if (!cut<T, Traits>(a, columns, b)) continue;
      const int64_t count = count_instructions<Traits>(b);
      if (count >= least) continue;
      least = count;
      best = b;
    }
  }
  return best;
}

template <class T, class Traits>
const char* launch_expand_depthwise(const ExpandDepthwiseConvBnActArgs& a, float* workspace, void* stream) {
  const DepthwiseConvBnActArgs& d = a.depthwise;
  Blocks b = make_blocks<T, Traits>(a);
  const int64_t tiles = d.out.images * b.plan.tiles();
  // Where there are few tiles, several blocks share one: each copies what is under it.
  const auto shares = static_cast<int>(smaller<int64_t>(b.plan.chunks, divide_up(blocks_to_fill(), tiles)));
  b.chunks_of_share = divide_up(b.plan.chunks, shares);
  b.shares = divide_up(b.plan.chunks, b.chunks_of_share);
  b.plan.vectors = aligned<T, kVector<T>>(d.x, a.in_channels);
  b.plan.pairs = aligned<T, kPair>(d.y, d.out.channels);
  b.weight_vectors = aligned<T, kVector<T>>(a.expand_weight, a.in_channels);
  const Grid grid{tiles * b.shares, kThreads, b.bytes};
  float* sums = d.mean == nullptr ? nullptr : workspace;
  const char* error = launch(expand_depthwise_nhwc_fwd_kernel<T, Traits>, grid, stream, a, b, sums);
  if (error != nullptr || sums == nullptr) return error;
  return mean_of_parts(sums, d.out.images, b.plan.tiles(), d.out.channels, d.out.pixels(), d.mean, stream);
}

// Beside what the products need, 25 weights leave registers for 2x4 pixels.
template <int kKernel, int kStride, int kRows>
auto fewer_rows(depthwise_tiles::Traits<kKernel, kStride, kRows>) {
  return depthwise_tiles::Traits<kKernel, kStride, kKernel == 3 ? kRows : 2>{};
}

// Calls f with a null pointer of the element type and the traits of the kernel for these arguments; returns
// why, where there is none.
template <class F>
const char* with_kernel(const ExpandDepthwiseConvBnActArgs& a, const F& f) {
  if (a.in_channels > kMostExpanding) return "it has too many input channels";
  return with_tile(a.depthwise.window, [&](auto traits) -> const char* {
    using Traits = decltype(traits);
    if constexpr (std::is_same_v<Traits, std::nullptr_t>) {
      return "there is no kernel for this window";
    } else if constexpr (Traits::kKernel > 5) {
      return "there is no kernel for this window";
    } else {
      if (a.depthwise.dtype == Dtype::kHalf) return f(static_cast<Half*>(nullptr), fewer_rows(traits));
      if (a.depthwise.dtype == Dtype::kBFloat16)
        return f(static_cast<BFloat16*>(nullptr), fewer_rows(traits));
      return "it computes float16 and bfloat16";
    }
  });
}

}  // namespace

int64_t expand_depthwise_conv_bn_act_workspace(const ExpandDepthwiseConvBnActArgs& a) {
  const DepthwiseConvBnActArgs& d = a.depthwise;
  int64_t floats = 0;
  if (d.mean == nullptr) return floats;
  with_kernel(a, [&](auto* type, auto traits) {
    using T = std::remove_pointer_t<decltype(type)>;
    // Of every tile a partial sum of every channel.
    floats = d.out.images * make_blocks<T, decltype(traits)>(a).plan.tiles() * d.out.channels;
    return nullptr;
  });
  return floats;
}

const char* expand_depthwise_conv_bn_act(const ExpandDepthwiseConvBnActArgs& a, float* workspace,
                                         void* stream) {
  if (a.depthwise.out.images == 0) return nullptr;
  return with_kernel(a, [&](auto* type, auto traits) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch_expand_depthwise<T, decltype(traits)>(a, workspace, stream);
  });
}

}  // namespace effkernels::cuda
