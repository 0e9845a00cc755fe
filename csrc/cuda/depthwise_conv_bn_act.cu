// depthwise_conv_bn_act(_pool): the choice of a kernel, and those without tensor cores.

#include "cuda/depthwise_conv_bn_act.h"

#include <type_traits>

#include "cuda/common/depthwise_tiles.cuh"
#include "cuda/common/pool.cuh"
#include "cuda/depthwise_tensor_core.h"

namespace effkernels::cuda {
namespace {

using namespace depthwise_tiles;

// A tile of pixels of a chunk of channels of one image: the pixels under the tile are copied to shared
// memory, 16 bytes at a time, and zeros for padding. Each element comes from DRAM once, and again from L2
// where tiles overlap.
template <class T, class Traits>
EFFKERNELS_KERNEL(kMostThreads, Traits::kBlocks)
depthwise_nhwc_fwd_kernel(const DepthwiseConvBnActArgs a, const Plan p, float* sums) {
  let_next_launch_begin();
  wait_for_previous_launch();
  // Chunks are innermost: they share lines of DRAM.
  const int channel = static_cast<int>(block_index() % p.chunks) * p.chunk;
  const Tile tile = tile_of(p, a.window, block_index() / p.chunks);
  const int channels = smaller(p.chunk, a.in.channels - channel);

  T* inputs = reinterpret_cast<T*>(shared_memory());  // [in_rows][in_columns][chunk]
  float* weights = reinterpret_cast<float*>(inputs + p.in_rows * p.in_columns * p.chunk);  // [taps][chunk]
  Folded* folded = reinterpret_cast<Folded*>(weights + Traits::kTaps * p.chunk);           // [chunk]
  const T* x = static_cast<const T*>(a.x) + tile.image * a.in.height * a.in.width * a.in.channels + channel;
  // The pixel under the tile, or null where there is padding.
  const auto under = [&](int row, int column) -> const T* {
    const int h = tile.in_row + row, w = tile.in_column + column;
    const bool inside = h >= 0 && h < a.in.height && w >= 0 && w < a.in.width;
    return inside ? x + (static_cast<int64_t>(h) * a.in.width + w) * a.in.channels : nullptr;
  };
  if (p.vectors) {
    for_elements<kVector<T>>(p.in_rows, p.in_columns, p.chunk, [&](int row, int column, int c) {
      const T* from = under(row, column);
      const bool valid = from != nullptr && c < channels;
      copy_16_bytes(inputs + (row * p.in_columns + column) * p.chunk + c, valid ? from + c : x, valid);
    });
  } else {
    for_elements<kPair>(p.in_rows, p.in_columns, p.chunk, [&](int row, int column, int c) {
      const T* from = under(row, column);
      for (int e = c; e < c + kPair; ++e) {
        inputs[(row * p.in_columns + column) * p.chunk + e] = from != nullptr && e < channels ? from[e] : T{};
      }
    });
  }
  const T* weight = static_cast<const T*>(a.weight) + static_cast<int64_t>(channel) * Traits::kTaps;
  stage_weights<Traits::kTaps>(weight, channels, p.chunk, weights);
  fold_channels(a.norm, channel, channels, p.chunk, folded);
  wait_for_copies();
  barrier();

  if (sums != nullptr) sums += (tile.image * p.tiles() + tile.index) * a.out.channels + channel;
  const Lane lane = Lane::of(p.chunk);
  float total[kPair] = {};
  compute_patches<Traits>(a, p, tile, Staged<T>{inputs, p.chunk, weights, folded, channel, channels}, lane,
                          total);
  if (sums != nullptr) {
    add_groups(total, lane.group, lane.groups, lane.index, p.chunk, channels,
               reinterpret_cast<float*>(shared_memory()), sums);
  }
}

// Pixels of a tile, at most. Wide ones overlap less; what is under them must leave room in 48 KB for two
// blocks or more on a multiprocessor, so that one computes while others copy.
//   3x3: 10x18 under 8x16; stride 2: 17x17 under 8x8.   5x5: 12x20 under 8x16; stride 2: 15x19 under 6x8.
//   7x7: 14x14 under 8x8; stride 2: 13x21 under 4x8.    128 bytes each, if there are so many channels.
template <class Traits>
constexpr int kTileRows = Traits::kStride == 1 || Traits::kKernel == 3 ? 8
                          : Traits::kKernel == 5                       ? 6
                                                                       : 4;
template <class Traits>
constexpr int kTileColumns = Traits::kStride == 1 && Traits::kKernel < 7 ? 16 : 8;

// Bytes of shared memory that a channel of a chunk takes.
template <class T, class Traits>
int64_t bytes_of_a_channel(const Plan& p) {
  return p.in_rows * p.in_columns * sizeof(T) + Traits::kTaps * sizeof(float) + sizeof(Folded);
}

template <class T, class Traits>
Plan make_plan(const DepthwiseConvBnActArgs& a) {
  static_assert(kTileRows<Traits> % Traits::kRows == 0 && kTileColumns<Traits> % Traits::kColumns == 0);
  Plan p;
  p.cut<Traits>(a.out, kTileRows<Traits>, kTileColumns<Traits>);
  // A line of 128 bytes, if shared memory has room for so many; then chunks of the same size.
  const int room =
      static_cast<int>(kSharedBytes / bytes_of_a_channel<T, Traits>(p)) / kVector<T> * kVector<T>;
  const int most = smaller(128 / static_cast<int>(sizeof(T)), room);
  p.chunk = round_up(divide_up(a.in.channels, divide_up(a.in.channels, most)), kVector<T>);
  p.chunks = divide_up(a.in.channels, p.chunk);
  p.vectors = aligned<T, kVector<T>>(a.x, a.in.channels);
  p.pairs = aligned<T, kPair>(a.y, a.out.channels);
  return p;
}

template <class T, class Traits>
const char* launch_tiles(const DepthwiseConvBnActArgs& a, float* sums, const Stream& stream) {
  const Plan p = make_plan<T, Traits>(a);
  const int pairs = p.chunk / kPair;
  const int patches = p.tile_rows * p.tile_columns / (Traits::kRows * Traits::kColumns);
  Grid grid;
  grid.kernel = "depthwise_nhwc_fwd";
  grid.blocks = a.out.images * p.tiles() * p.chunks;
  grid.threads = round_up(smaller(kMostThreads / pairs, patches) * pairs, kWarp);
  const int64_t totals = grid.threads * kPair * sizeof(float);
  grid.shared_bytes = larger(p.chunk * bytes_of_a_channel<T, Traits>(p), totals);
  return launch(depthwise_nhwc_fwd_kernel<T, Traits>, grid, stream, a, p, sums);
}

// Any kernel, stride and dilation, straight from global memory: neighbouring lanes read neighbouring
// channels, and taps that were read before come from the caches.
constexpr int kThreads = 256;
constexpr int kChunk = 64;   // channels of a block, at most
constexpr int kPixels = 64;  // pixels of a block

int parts_of(const DepthwiseConvBnActArgs& a) {
  return static_cast<int>(divide_up<int64_t>(int64_t{a.out.height} * a.out.width, kPixels));
}

template <class T>
EFFKERNELS_DEVICE float convolve(const DepthwiseConvBnActArgs& a, const T* x, const T* weight, int out_h,
                                 int out_w) {
  const Window& window = a.window;
  float sum = 0.0f;
  for (int i = 0; i < window.kernel_h; ++i) {
    const int64_t h = int64_t{out_h} * window.stride_h + int64_t{i} * window.dilation_h - window.top;
    if (h < 0 || h >= a.in.height) continue;
    for (int j = 0; j < window.kernel_w; ++j) {
      const int64_t w = int64_t{out_w} * window.stride_w + int64_t{j} * window.dilation_w - window.left;
      if (w < 0 || w >= a.in.width) continue;
      sum += widen(x[(h * a.in.width + w) * a.in.channels]) * widen(weight[i * window.kernel_w + j]);
    }
  }
  return sum;
}

template <class T>
EFFKERNELS_KERNEL(kThreads, 3)
depthwise_nhwc_general_fwd_kernel(const DepthwiseConvBnActArgs a, int chunk, int chunks, int parts,
                                  float* sums) {
  let_next_launch_begin();
  wait_for_previous_launch();
  int64_t rest = block_index();
  const int channel = static_cast<int>(rest % chunks) * chunk;
  rest /= chunks;
  const int part = static_cast<int>(rest % parts);
  const int64_t image = rest / parts, pixels = int64_t{a.out.height} * a.out.width;
  const int channels = smaller(chunk, a.in.channels - channel);
  const int lane = thread_index() % chunk, group = thread_index() / chunk, groups = block_threads() / chunk;
  float total[1] = {};
  if (group < groups && lane < channels) {
    const int64_t taps = int64_t{a.window.kernel_h} * a.window.kernel_w;
    const T* x =
        static_cast<const T*>(a.x) + image * a.in.height * a.in.width * a.in.channels + channel + lane;
    const T* weight = static_cast<const T*>(a.weight) + (channel + lane) * taps;
    T* y = static_cast<T*>(a.y) + image * pixels * a.out.channels + channel + lane;
    const Folded folded = fold(a.norm, channel + lane);
    const int64_t begin = int64_t{part} * kPixels, end = smaller(begin + kPixels, pixels);
    for (int64_t pixel = begin + group; pixel < end; pixel += groups) {
      const int out_h = static_cast<int>(pixel / a.out.width);
      const int out_w = static_cast<int>(pixel - int64_t{out_h} * a.out.width);
      float result[1] = {convolve(a, x, weight, out_h, out_w) * folded.scale + folded.shift};
      activate(a.activation, result);
      narrow(result[0], y[pixel * a.out.channels]);
      total[0] += result[0];
    }
  }
  if (sums != nullptr) {
    add_groups(total, group, groups, lane, chunk, channels, reinterpret_cast<float*>(shared_memory()),
               sums + (image * parts + part) * a.out.channels + channel);
  }
}

template <class T>
const char* launch_general(const DepthwiseConvBnActArgs& a, float* sums, const Stream& stream) {
  const int chunk = smaller(kChunk, a.in.channels), chunks = divide_up(a.in.channels, chunk);
  const int parts = parts_of(a);
  const int threads = smaller(kThreads, round_up(chunk * kPixels, kWarp));
  const Grid grid{"depthwise_nhwc_general_fwd", a.out.images * parts * chunks, threads, int64_t{threads} * 4};
  return launch(depthwise_nhwc_general_fwd_kernel<T>, grid, stream, a, chunk, chunks, parts, sums);
}

}  // namespace

int depthwise_conv_bn_act_parts(const DepthwiseConvBnActArgs& a) {
  if (const int parts = depthwise_tensor_core_parts(a)) return parts;
  return with_tile(a.window, [&](auto traits) {
    using Traits = decltype(traits);
    if constexpr (std::is_same_v<Traits, std::nullptr_t>) {
      return parts_of(a);
    } else {
      return make_plan<float, Traits>(a).tiles();  // whatever the dtype
    }
  });
}

const char* depthwise_conv_bn_act_sums(const DepthwiseConvBnActArgs& a, float* sums, const Stream& stream) {
  if (a.out.images == 0) return nullptr;
  if (depthwise_tensor_core_parts(a) > 0) return depthwise_tensor_core(a, sums, stream);
  return with_tile(a.window, [&](auto traits) {
    return with_dtype(a.dtype, [&](auto* type) {
      using Traits = decltype(traits);
      using T = std::remove_pointer_t<decltype(type)>;
      if constexpr (std::is_same_v<Traits, std::nullptr_t>) {
        return launch_general<T>(a, sums, stream);
      } else {
        return launch_tiles<T, Traits>(a, sums, stream);
      }
    });
  });
}

int64_t depthwise_conv_bn_act_workspace(const DepthwiseConvBnActArgs& a) {
  return a.mean == nullptr ? 0 : a.out.images * depthwise_conv_bn_act_parts(a) * a.out.channels;
}

const char* depthwise_conv_bn_act(const DepthwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  const char* error = depthwise_conv_bn_act_sums(a, a.mean == nullptr ? nullptr : workspace, stream);
  if (error != nullptr || a.mean == nullptr || a.out.images == 0) return error;
  return mean_of_parts(workspace, a.out.images, depthwise_conv_bn_act_parts(a), a.out.channels,
                       a.out.pixels(), a.mean, stream);
}

}  // namespace effkernels::cuda
