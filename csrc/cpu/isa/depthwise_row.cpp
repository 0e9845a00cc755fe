#include "cpu/isa/depthwise_row.h"

#include "cpu/isa/activation.h"

#if !defined(__AVX512BF16__)  // see depthwise_row.h

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Pixels of the result that are summed together: each weight and each input is loaded once for all of
// them. The sums, the inputs of one row and a weight should fit into the registers. Maps of the networks are
// often 7 * 2^n wide.
constexpr int block_width(int kernel, int stride) {
  if (kRegisters == 32) return 7;
  return stride == 1 && kernel < 7 ? 6 : 4;
}

template <class Out, int kWidth>
EFFKERNELS_INLINE void finish(const DepthwiseRow& row, int first, int count, int channel, int channels,
                              Vec (&sums)[kWidth], Vec& total) {
  activate(row.activation, row.dtype, sums);
  Out* out = static_cast<Out*>(row.out) + first * row.out_pixel + channel;
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) store_up_to(out + i * row.out_pixel, sums[i], channels);
  }
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) total = total + sums[i];
  }
}

// The results of each row are summed separately and then added: one chain over a whole map would round too
// much.
EFFKERNELS_INLINE void add_row(const DepthwiseRow& row, int channel, Vec total) {
  if (row.sums != nullptr) store(row.sums + channel, load(row.sums + channel) + total);
}

// The pixels under a block that lie inside the image; the others are padding.
struct Span {
  int begin, end;
};

// Computes `count` pixels of the result from `first`, one vector of channels. `inputs` are the input rows
// under the block, from its first pixel; null for padding. With kEdge, only the pixels of `span` lie inside
// the image.
template <class In, class Out, int kKernel, int kStride, int kWidth, bool kEdge>
EFFKERNELS_INLINE void block(const DepthwiseRow& row, const In* const (&inputs)[kKernel], int64_t pixel,
                             Span span, int first, int count, int channel, Vec& total) {
  constexpr int kInputs = (kWidth - 1) * kStride + kKernel;
  const float* weights = row.weights + channel;
  Vec sums[kWidth];
  for (int i = 0; i < kWidth; ++i) sums[i] = load(row.shift + channel);
  for (int y = 0; y < kKernel; ++y, weights += kKernel * row.chunk) {
    if (inputs[y] == nullptr) continue;
    Vec in[kInputs];
    for (int i = 0; i < kInputs; ++i) {
      const bool there = !kEdge || (i >= span.begin && i < span.end);
      in[i] = there ? load(inputs[y] + i * pixel) : broadcast(0.0f);
    }
    for (int x = 0; x < kKernel; ++x) {
      const Vec weight = load(weights + x * row.chunk);
      for (int i = 0; i < kWidth; ++i) sums[i] = fma(in[i * kStride + x], weight, sums[i]);
    }
  }
  finish<Out>(row, first, count, channel, row.channels - channel, sums, total);
}

// A block of the last channels, fewer than a vector has lanes: the input is copied into a tile whose other
// lanes are zeros.
template <class In, class Out, int kKernel, int kStride, int kWidth>
void last_channels(const DepthwiseRow& row, const In* const (&inputs)[kKernel], Span span, int first,
                   int count, int channel, Vec& total) {
  constexpr int kInputs = (kWidth - 1) * kStride + kKernel;
  float tile[kKernel][kInputs * kLanes];
  const float* tiles[kKernel];
  for (int y = 0; y < kKernel; ++y) {
    tiles[y] = inputs[y] == nullptr ? nullptr : tile[y];
    if (inputs[y] == nullptr) continue;
    for (int i = span.begin; i < span.end; ++i) {
      store(tile[y] + i * kLanes, load_up_to(inputs[y] + i * row.pixel, row.channels - channel));
    }
  }
  block<float, Out, kKernel, kStride, kWidth, true>(row, tiles, kLanes, span, first, count, channel, total);
}

template <class In, class Out, int kKernel, int kStride, int kWidth>
void square_row(const DepthwiseRow& row) {
  constexpr int kInputs = (kWidth - 1) * kStride + kKernel;
  for (int channel = 0; channel < row.channels; channel += kLanes) {
    Vec total = broadcast(0.0f);
    for (int x = 0; x < row.out_width; x += kWidth) {
      const int column = x * kStride - row.window.left;
      const int count = smaller(kWidth, row.out_width - x);
      const In* inputs[kKernel];
      for (int y = 0; y < kKernel; ++y) {
        const In* in = static_cast<const In*>(row.rows[y]);
        inputs[y] = in == nullptr ? nullptr : in + column * row.pixel + channel;
      }
      const Span span{larger(0, -column - row.margin), smaller(kInputs, row.width + row.margin - column)};
      if (channel + kLanes > row.channels) {
        last_channels<In, Out, kKernel, kStride, kWidth>(row, inputs, span, x, count, channel, total);
      } else if (span.begin > 0 || span.end < kInputs) {
        block<In, Out, kKernel, kStride, kWidth, true>(row, inputs, row.pixel, span, x, count, channel,
                                                       total);
      } else {
        block<In, Out, kKernel, kStride, kWidth, false>(row, inputs, row.pixel, span, x, count, channel,
                                                        total);
      }
    }
    add_row(row, channel, total);
  }
}

// Widths that are no multiple of 7 may be multiples of 8.
constexpr bool takes_wider_blocks(int kernel, int stride, int out_width) {
  const int width = block_width(kernel, stride);
  return kRegisters == 32 && stride == 1 && round_up(out_width, width + 1) < round_up(out_width, width);
}

// Any kernel, stride and dilation: pixel by pixel.
template <class In, class Out>
void general_row(const DepthwiseRow& row) {
  const Window& w = row.window;
  for (int channel = 0; channel < row.channels; channel += kLanes) {
    const int channels = row.channels - channel;
    Vec total = broadcast(0.0f);
    for (int x = 0; x < row.out_width; ++x) {
      Vec sums[1] = {load(row.shift + channel)};
      for (int i = 0; i < w.kernel_h; ++i) {
        if (row.rows[i] == nullptr) continue;
        const In* in = static_cast<const In*>(row.rows[i]) + channel;
        for (int j = 0; j < w.kernel_w; ++j) {
          const int column = x * w.stride_w - w.left + j * w.dilation_w;
          if (column < 0 || column >= row.width) continue;
          const Vec weight = load(row.weights + (i * w.kernel_w + j) * row.chunk + channel);
          sums[0] = fma(load_up_to(in + column * row.pixel, channels), weight, sums[0]);
        }
      }
      finish<Out>(row, x, 1, channel, channels, sums, total);
    }
    add_row(row, channel, total);
  }
}

template <class In, class Out, int kKernel>
DepthwiseRowKernel square_kernel(int stride, int out_width) {
  constexpr int kWidth = block_width(kKernel, 1);
  if (stride == 2) return square_row<In, Out, kKernel, 2, block_width(kKernel, 2)>;
  if (takes_wider_blocks(kKernel, 1, out_width)) return square_row<In, Out, kKernel, 1, kWidth + 1>;
  return square_row<In, Out, kKernel, 1, kWidth>;
}

bool is_square(const Window& w) {
  const bool odd = w.kernel_w == 3 || w.kernel_w == 5 || w.kernel_w == 7;
  return odd && w.kernel_h == w.kernel_w && w.stride_w <= 2 && w.dilation_h == 1 && w.dilation_w == 1;
}

// Processors without AVX2 convert elements of 16 bits one by one. That binds, so kernels of their own for
// these are not worth the time in which they compile.
template <class In>
constexpr bool kHasSquare = sizeof(In) == sizeof(float) || kLanes > 4 || kRegisters == 32;

template <class In, class Out>
DepthwiseRowKernel kernel_for(const Window& w, int out_width) {
  if constexpr (kHasSquare<In>) {
    if (is_square(w)) {
      if (w.kernel_w == 3) return square_kernel<In, Out, 3>(w.stride_w, out_width);
      if (w.kernel_w == 5) return square_kernel<In, Out, 5>(w.stride_w, out_width);
      return square_kernel<In, Out, 7>(w.stride_w, out_width);
    }
  }
  return general_row<In, Out>;
}

}  // namespace

int depthwise_margin(const Window& w, int width, int out_width) {
  if (!is_square(w)) return 0;  // the general kernel checks every column
  const int block =
      block_width(w.kernel_w, w.stride_w) + takes_wider_blocks(w.kernel_w, w.stride_w, out_width);
  const int end = (round_up(out_width, block) - 1) * w.stride_w - w.left + w.kernel_w;
  return larger(w.left, end - width);
}

DepthwiseRowKernel depthwise_row_kernel(const Window& w, int out_width, Dtype in, Dtype out) {
  if (in == Dtype::kFloat) return kernel_for<float, float>(w, out_width);
  const bool widens = out == Dtype::kFloat;
  if (in == Dtype::kBFloat16) {
    return widens ? kernel_for<BFloat16, float>(w, out_width) : kernel_for<BFloat16, BFloat16>(w, out_width);
  }
  return widens ? kernel_for<Half, float>(w, out_width) : kernel_for<Half, Half>(w, out_width);
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA

#endif
