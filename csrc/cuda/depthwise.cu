// depthwise_conv_bn_act(_pool): the choice of a kernel, and the general one.

#include "cuda/depthwise.cuh"

namespace effkernels::cuda {
namespace {

// Any kernel, stride and dilation, straight from global memory: neighbouring lanes read neighbouring
// channels, and taps that were read before come from the caches.
constexpr int kThreads = 256;
constexpr int kChunk = 64;   // channels of a block, at most
constexpr int kPixels = 64;  // pixels of a block

int parts_of(const DepthwiseArgs& a) {
  return static_cast<int>(divide_up<int64_t>(int64_t{a.out.height} * a.out.width, kPixels));
}

template <class T>
EFFKERNELS_DEVICE float convolve(const DepthwiseArgs& a, const T* x, const T* weight, int out_h, int out_w) {
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
depthwise_nhwc_general_kernel(const DepthwiseArgs a, int chunk, int chunks, int parts, float* sums) {
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
const char* launch_general(const DepthwiseArgs& a, float* sums, void* stream) {
  const int chunk = smaller(kChunk, a.in.channels), chunks = divide_up(a.in.channels, chunk);
  const int parts = parts_of(a);
  const int threads = smaller(kThreads, round_up(chunk * kPixels, kWarp));
  const Grid grid{a.out.images * parts * chunks, threads, int64_t{threads} * 4};
  return launch(depthwise_nhwc_general_kernel<T>, grid, stream, a, chunk, chunks, parts, sums);
}

// Calls f with the traits of the specialised kernel for this window, or with nullptr where there is none.
template <class F>
auto with_tile(const Window& w, const F& f) {
  using depthwise_tiles::Traits;
  const bool plain =
      w.kernel_h == w.kernel_w && w.stride_h == w.stride_w && w.dilation_h == 1 && w.dilation_w == 1;
  const int kernel = plain && w.stride_h <= 2 ? w.kernel_h : 0;
  const bool one = w.stride_h == 1;
  if (kernel == 3) return one ? f(Traits<3, 1>{}) : f(Traits<3, 2>{});
  if (kernel == 5) return one ? f(Traits<5, 1>{}) : f(Traits<5, 2>{});
  if (kernel == 7) return one ? f(Traits<7, 1>{}) : f(Traits<7, 2>{});
  return f(nullptr);
}

// Blocks of an image, each of which has a partial sum of every channel.
int parts(const DepthwiseArgs& a) {
  return with_tile(a.window, [&](auto tile) {
    using Tile = decltype(tile);
    if constexpr (std::is_same_v<Tile, std::nullptr_t>) {
      return parts_of(a);
    } else {
      return depthwise_tiles::tiles_of<Tile>(a);
    }
  });
}

}  // namespace

int64_t depthwise_workspace(const DepthwiseArgs& a) {
  return a.mean == nullptr ? 0 : a.out.images * parts(a) * a.out.channels;
}

const char* depthwise(const DepthwiseArgs& a, float* workspace, void* stream) {
  if (a.out.images == 0) return nullptr;
  float* sums = a.mean == nullptr ? nullptr : workspace;
  const char* error = with_tile(a.window, [&](auto tile) {
    return with_dtype(a.dtype, [&](auto* type) {
      using Tile = decltype(tile);
      using T = std::remove_pointer_t<decltype(type)>;
      if constexpr (std::is_same_v<Tile, std::nullptr_t>) {
        return launch_general<T>(a, sums, stream);
      } else {
        return depthwise_tiles::launch_tiles<T, Tile>(a, sums, stream);
      }
    });
  });
  if (error != nullptr || a.mean == nullptr) return error;
  const int64_t pixels = int64_t{a.out.height} * a.out.width;
  return mean_of_parts(workspace, a.out.images, parts(a), a.out.channels, pixels, a.mean, stream);
}

}  // namespace effkernels::cuda
