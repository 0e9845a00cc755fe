#include "cpu/depthwise_row.h"

#include "cpu/activation.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Pixels of the result that are summed side by side: each weight and each input is then loaded once for all
// of them. Sums, the inputs of one row and a weight should fit into the registers. Maps of the networks are
// often 7 * 2^n wide.
constexpr int block_width(int kernel, int stride) {
  if (kRegisters == 32) return 7;
  return stride == 1 && kernel < 7 ? 6 : 4;
}

template <class In>
EFFKERNELS_INLINE Vec load_pixel(const In* row, int64_t pixel, int column, int width, int channels,
                                 bool inside) {
  if (inside) return load(row + column * pixel);
  if (column < 0 || column >= width) return broadcast(0.0f);
  return load_up_to(row + column * pixel, channels);
}

template <class Out, int kWidth>
EFFKERNELS_INLINE void finish(const DepthwiseRow& row, int first, int count, int channel, int channels,
                              Vec (&sums)[kWidth], Vec& total) {
  activate(row.activation, sums);
  Out* out = static_cast<Out*>(row.out) + first * row.out_pixel + channel;
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) store_up_to(out + i * row.out_pixel, sums[i], channels);
  }
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) total = total + sums[i];
  }
}

// Each row is summed by itself, and then added: sums over a whole map lose too much.
EFFKERNELS_INLINE void add_row(const DepthwiseRow& row, int channel, Vec total) {
  if (row.sums != nullptr) store(row.sums + channel, load(row.sums + channel) + total);
}

// `count` pixels of the result from `first`, one vector of channels. `inside`: all of the input lies in the
// row or in its zero margins, and all channels exist.
template <class In, class Out, int kKernel, int kStride, int kWidth, bool kInside>
EFFKERNELS_INLINE void block(const DepthwiseRow& row, int first, int count, int channel, Vec& total) {
  constexpr int kInputs = (kWidth - 1) * kStride + kKernel;
  const int channels = kInside ? kLanes : row.channels - channel;
  const int column = first * kStride - row.window.left;
  const float* weights = row.weights + channel;
  Vec sums[kWidth];
  for (int i = 0; i < kWidth; ++i) sums[i] = load(row.shift + channel);
  for (int y = 0; y < kKernel; ++y, weights += kKernel * row.panel) {
    if (row.rows[y] == nullptr) continue;
    const In* in = static_cast<const In*>(row.rows[y]) + channel;
    Vec inputs[kInputs];
    for (int i = 0; i < kInputs; ++i) {
      inputs[i] = load_pixel(in, row.pixel, column + i, row.width, channels, kInside);
    }
    for (int x = 0; x < kKernel; ++x) {
      const Vec weight = load(weights + x * row.panel);
      for (int i = 0; i < kWidth; ++i) sums[i] = fma(inputs[i * kStride + x], weight, sums[i]);
    }
  }
  finish<Out>(row, first, count, channel, channels, sums, total);
}

template <class In, class Out, int kKernel, int kStride, int kWidth>
void square_row(const DepthwiseRow& row) {
  for (int channel = 0; channel < row.channels; channel += kLanes) {
    Vec total = broadcast(0.0f);
    for (int x = 0; x < row.out_width; x += kWidth) {
      const int column = x * kStride - row.window.left;
      const bool inside =
          column >= -row.margin && column + (kWidth - 1) * kStride + kKernel <= row.width + row.margin;
      const int count = smaller(kWidth, row.out_width - x);
      if (inside && channel + kLanes <= row.channels) {
        block<In, Out, kKernel, kStride, kWidth, true>(row, x, count, channel, total);
      } else {
        block<In, Out, kKernel, kStride, kWidth, false>(row, x, count, channel, total);
      }
    }
    add_row(row, channel, total);
  }
}

// Maps that blocks of 7 do not fill may be filled by blocks of 8.
constexpr bool takes_wider_blocks(int kernel, int stride, int out_width) {
  const int width = block_width(kernel, stride);
  return kRegisters == 32 && stride == 1 && round_up(out_width, width + 1) < round_up(out_width, width);
}

template <class In, class Out, int kKernel>
void stride_1_row(const DepthwiseRow& row) {
  constexpr int kWidth = block_width(kKernel, 1);
  if (takes_wider_blocks(kKernel, 1, row.out_width)) return square_row<In, Out, kKernel, 1, kWidth + 1>(row);
  square_row<In, Out, kKernel, 1, kWidth>(row);
}

template <class In, class Out, int kKernel>
void stride_2_row(const DepthwiseRow& row) {
  square_row<In, Out, kKernel, 2, block_width(kKernel, 2)>(row);
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
          const Vec weight = load(row.weights + (i * w.kernel_w + j) * row.panel + channel);
          sums[0] = fma(load_up_to(in + column * row.pixel, channels), weight, sums[0]);
        }
      }
      finish<Out>(row, x, 1, channel, channels, sums, total);
    }
    add_row(row, channel, total);
  }
}

template <class In, class Out>
DepthwiseRowKernel kernel_for(const Window& w) {
  if (w.kernel_h != w.kernel_w || w.dilation_h != 1 || w.dilation_w != 1) return general_row<In, Out>;
  switch (w.kernel_w * 10 + w.stride_w) {
    case 31:
      return stride_1_row<In, Out, 3>;
    case 32:
      return stride_2_row<In, Out, 3>;
    case 51:
      return stride_1_row<In, Out, 5>;
    case 52:
      return stride_2_row<In, Out, 5>;
    case 71:
      return stride_1_row<In, Out, 7>;
    case 72:
      return stride_2_row<In, Out, 7>;
    default:
      return general_row<In, Out>;
  }
}

}  // namespace

int depthwise_margin(const Window& w, int width, int out_width) {
  if (w.kernel_w > 7 || w.stride_w > 2) return w.left;  // the general kernel asks
  const int block =
      block_width(w.kernel_w, w.stride_w) + takes_wider_blocks(w.kernel_w, w.stride_w, out_width);
  const int end = (round_up(out_width, block) - 1) * w.stride_w - w.left + w.kernel_w;
  return larger(w.left, end - width);
}

DepthwiseRowKernel depthwise_row_kernel(const Window& window, Dtype in, Dtype out) {
  if (in == Dtype::kFloat) return kernel_for<float, float>(window);
  if (in == Dtype::kBFloat16) {
    return out == Dtype::kFloat ? kernel_for<BFloat16, float>(window)
                                : kernel_for<BFloat16, BFloat16>(window);
  }
  return out == Dtype::kFloat ? kernel_for<Half, float>(window) : kernel_for<Half, Half>(window);
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
