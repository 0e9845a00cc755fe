// conv_bn_act for few input channels: direct, from NCHW or NHWC images, bytes too, to NHWC. The stems of
// networks have a kernel of their own in 16 bits: stem_conv_bn_act.cu.
//
// A block keeps the weights of a chunk of output channels in shared memory; each thread computes 8 channels
// of 4 neighbouring pixels of a row: two reads of weights serve 32 products. What it reads of the image comes
// from the caches after the first time.

#include "cuda/conv_bn_act.h"

#include <type_traits>

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/stem_conv_bn_act.h"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChannels = 8, kPixels = 4;  // of a thread

struct Plan {
  int64_t planes, pixels;  // strides of channels, and of neighbouring pixels, in x
  int chunk, chunks;       // output channels of a block
  int strips;              // of kPixels pixels, in a row
  int64_t blocks;          // of a chunk of an image
  bool vectors;            // whether 8 channels of y may be written at once
};

int terms_of(const ConvBnActArgs& a) { return a.window.kernel_h * a.window.kernel_w * a.in.channels; }

// Weights [terms][chunk], the terms in the order (row, column, input channel), over the deviations of what
// they are multiplied with.
template <class T>
EFFKERNELS_DEVICE void stage_weights(const ConvBnActArgs& a, int terms, int first, int there, int chunk,
                                     float* weights) {
  for (int i = thread_index(); i < terms * chunk; i += block_threads()) {
    const int term = i / chunk, c = i - term * chunk, tap = term / a.in.channels;
    const int row = tap / a.window.kernel_w, column = tap - row * a.window.kernel_w;
    const int in = term - tap * a.in.channels;
    const int64_t at = (first + c) * a.weight_strides[0] + in * a.weight_strides[1] +
                       row * a.weight_strides[2] + column * a.weight_strides[3];
    const float weight = c < there ? widen(static_cast<const T*>(a.weight)[at]) : 0.0f;
    weights[i] = a.image_std.data == nullptr ? weight : weight / parameter(a.image_std, in);
  }
}

// X is the element type of x, T that of weight and y.
template <class X, class T>
EFFKERNELS_KERNEL(kThreads, 2)
conv_nhwc_fwd_kernel(const ConvBnActArgs a, const Plan p) {
  let_next_launch_begin();
  int64_t rest = block_index();
  const int channel = static_cast<int>(rest % p.chunks) * p.chunk;
  rest /= p.chunks;
  const int64_t image = rest / p.blocks;
  const int channels = smaller(p.chunk, a.out.channels - channel);
  const Window& window = a.window;
  const int terms = window.kernel_h * window.kernel_w * a.in.channels;
  float* weights = reinterpret_cast<float*>(shared_memory());
  Folded* folded = reinterpret_cast<Folded*>(weights + terms * p.chunk);
  float* means = reinterpret_cast<float*>(folded + p.chunk);
  for (int c = thread_index(); c < a.in.channels; c += block_threads()) {
    means[c] = parameter_or(a.image_mean, c, 0.0f);
  }
  stage_weights<T>(a, terms, channel, channels, p.chunk, weights);
  fold_channels(a.norm, channel, channels, p.chunk, folded);
  wait_for_previous_launch();
  barrier();

  const int lanes = p.chunk / kChannels, lane = thread_index() % lanes * kChannels;
  const int group = thread_index() / lanes, groups = block_threads() / lanes;
  const int64_t strip = rest % p.blocks * groups + group;
  if (group >= groups || strip >= int64_t{p.strips} * a.out.height || lane >= channels) return;
  const int64_t out_h = strip / p.strips, out_w = strip % p.strips * kPixels;
  const X* x = static_cast<const X*>(a.x) + image * a.in.height * a.in.width * a.in.channels;
  float result[kPixels][kChannels] = {};
  for (int i = 0; i < window.kernel_h; ++i) {
    const int64_t h = out_h * window.stride_h + int64_t{i} * window.dilation_h - window.top;
    if (h < 0 || h >= a.in.height) continue;
    for (int j = 0; j < window.kernel_w; ++j) {
      const float* weight = weights + (i * window.kernel_w + j) * a.in.channels * p.chunk + lane;
      const X* from[kPixels];
#pragma unroll
      for (int q = 0; q < kPixels; ++q) {
        const int64_t w = (out_w + q) * window.stride_w + int64_t{j} * window.dilation_w - window.left;
        const bool inside = w >= 0 && w < a.in.width;
        from[q] = inside ? x + (h * a.in.width + w) * p.pixels : nullptr;
      }
#pragma unroll 3
      for (int c = 0; c < a.in.channels; ++c, weight += p.chunk) {
        float factor[kChannels], pixel[kPixels];
        load(weight, true, kChannels, factor);
        const float mean = means[c];
#pragma unroll
        for (int q = 0; q < kPixels; ++q) {
          pixel[q] = from[q] == nullptr ? 0.0f : widen(from[q][c * p.planes]) - mean;
        }
#pragma unroll
        for (int q = 0; q < kPixels; ++q) {
#pragma unroll
          for (int k = 0; k < kChannels; ++k) result[q][k] += pixel[q] * factor[k];
        }
      }
    }
  }
  T* y = static_cast<T*>(a.y) + ((image * a.out.height + out_h) * a.out.width + out_w) * a.out.channels +
         channel + lane;
#pragma unroll
  for (int q = 0; q < kPixels; ++q) {
    if (out_w + q >= a.out.width) break;
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      const Folded norm = folded[lane + k];
      result[q][k] = result[q][k] * norm.scale + norm.shift;
    }
    activate(a.activation, result[q]);
    store(y + int64_t{q} * a.out.channels, p.vectors, channels - lane, result[q]);
  }
}

template <class X, class T>
const char* launch_conv(const ConvBnActArgs& a, const Stream& stream) {
  Plan p;
  p.planes = a.planar ? a.in.pixels() : 1;
  p.pixels = a.planar ? 1 : a.in.channels;
  const int64_t bytes_of_a_channel = terms_of(a) * sizeof(float) + sizeof(Folded);
  const int64_t bytes_of_means = a.in.channels * static_cast<int64_t>(sizeof(float));
  const int64_t fitting = (kSharedBytes - bytes_of_means) / bytes_of_a_channel;
  const int most = static_cast<int>(smaller<int64_t>(64, fitting / kChannels * kChannels));
  p.chunk = round_up(divide_up(a.out.channels, divide_up(a.out.channels, most)), kChannels);
  p.chunks = divide_up(a.out.channels, p.chunk);
  p.strips = divide_up(a.out.width, kPixels);
  const int groups = kThreads / (p.chunk / kChannels);
  p.blocks = divide_up<int64_t>(int64_t{p.strips} * a.out.height, groups);
  p.vectors = aligned<T, kChannels>(a.y, a.out.channels);
  const Grid grid{"conv_nhwc_fwd", a.out.images * p.blocks * p.chunks, kThreads,
                  p.chunk * bytes_of_a_channel + bytes_of_means};
  return launch(conv_nhwc_fwd_kernel<X, T>, grid, stream, a, p);
}

}  // namespace

const char* conv_bn_act(const ConvBnActArgs& a, const Stream& stream) {
  if (a.out.images == 0) return nullptr;
  if (terms_of(a) > kMostTerms) return "a sum has too many terms";
  if (takes_stem(a)) return stem_conv_bn_act(a, stream);
  return with_dtype(a.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return a.bytes ? launch_conv<uint8_t, T>(a, stream) : launch_conv<T, T>(a, stream);
  });
}

}  // namespace effkernels::cuda
