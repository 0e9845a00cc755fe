// depthwise_conv_wgrad: for each tap of the kernel, the products of x and the result's gradient are summed
// over all pixels. Channels lie in the lanes of vectors.

#include "cpu/isa/depthwise_row.h"
#include "cpu/isa/ops.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Channels per task, as in depthwise_conv_bn_act.cpp.
constexpr int kChunk = 128;
// Pixels of the result whose products are summed in one chain, at least; the sums of these groups are added
// in order. Groups do not depend on the number of threads, so neither does the result.
constexpr int64_t kGroupPixels = 512;
constexpr int64_t kMostGroups = 64;

// A task is a group of rows, of all images together, of one chunk of channels.
struct Cut {
  int chunk, chunks, taps;
  int64_t rows, groups;

  int64_t padded_channels() const { return static_cast<int64_t>(chunk) * chunks; }
  int64_t sums_floats() const { return groups * taps * padded_channels(); }
};

Cut cut(const DepthwiseConvWgradArgs& a) {
  Cut c;
  c.chunk = smaller(kChunk, round_up(a.out.channels, kLanes));
  c.chunks = divide_up(a.out.channels, c.chunk);
  c.taps = a.window.kernel_h * a.window.kernel_w;
  c.rows = a.out.images * a.out.height;
  const int64_t wanted = smaller(kMostGroups, divide_up(c.rows * a.out.width, kGroupPixels));
  c.groups = larger<int64_t>(1, smaller(wanted, c.rows));
  return c;
}

int64_t scratch_floats(const DepthwiseConvWgradArgs& a, int) { return cut(a).sums_floats(); }

// One row of the result under one row of the kernel; `in` and `grad` point to the first pixel of the rows of
// x and of the gradient, at the chunk's first channel.
struct Line {
  Window window;
  const float* in;
  const float* grad;
  int64_t pixel;  // elements between neighbouring pixels, of both
  int width, out_width, channels;
  float* sums;  // those of the row's taps, [kernel_w][stride]
  int64_t stride;
};

// Two chains for each tap keep the multipliers busy, where there are registers for them.
constexpr int chains(int kernel) { return kRegisters == 32 || kernel == 3 ? 2 : 1; }

// The pixels of the gradient that are taken together: each pixel of x is loaded once for all of them.
constexpr int block_width(int stride) {
  if (kRegisters == 32) return stride == 1 ? 7 : 4;
  return stride == 1 ? 4 : 2;
}

// Adds `count` pixels of the gradient from `grad`, of one vector of channels. `in` is the first pixel of x
// under them. With kEdge, only those pixels of x from `begin` to `end` are inside of the image, and only
// `channels` lanes are there.
template <int kKernel, int kStride, bool kEdge>
EFFKERNELS_INLINE void block(const float* in, const float* grad, int64_t pixel, int begin, int end, int count,
                             int channels, Vec (&sums)[2][kKernel]) {
  constexpr int kWidth = block_width(kStride), kInputs = (kWidth - 1) * kStride + kKernel;
  Vec x[kInputs];
  for (int i = 0; i < kInputs; ++i) {
    if constexpr (kEdge) {
      x[i] = i >= begin && i < end ? load_up_to(in + i * pixel, channels) : broadcast(0.0f);
    } else {
      x[i] = load(in + i * pixel);
    }
  }
  for (int i = 0; i < kWidth; ++i) {
    if (kEdge && i >= count) break;
    const Vec g = kEdge ? load_up_to(grad + i * pixel, channels) : load(grad + i * pixel);
    Vec(&chain)[kKernel] = sums[i % chains(kKernel)];
    for (int k = 0; k < kKernel; ++k) chain[k] = fma(x[i * kStride + k], g, chain[k]);
  }
}

template <int kKernel, int kStride>
void square_line(const Line& line) {
  constexpr int kWidth = block_width(kStride), kInputs = (kWidth - 1) * kStride + kKernel;
  for (int channel = 0; channel < line.channels; channel += kLanes) {
    Vec sums[2][kKernel];
    for (int k = 0; k < kKernel; ++k) sums[0][k] = sums[1][k] = broadcast(0.0f);
    const int channels = line.channels - channel;
    for (int x = 0; x < line.out_width; x += kWidth) {
      const int column = x * kStride - line.window.left, count = smaller(kWidth, line.out_width - x);
      const float* in = line.in + column * line.pixel + channel;
      const float* grad = line.grad + x * line.pixel + channel;
      const int begin = larger(0, -column), end = smaller(kInputs, line.width - column);
      if (begin > 0 || end < kInputs || count < kWidth || channels < kLanes) {
        block<kKernel, kStride, true>(in, grad, line.pixel, begin, end, count, channels, sums);
      } else {
        block<kKernel, kStride, false>(in, grad, line.pixel, begin, end, count, channels, sums);
      }
    }
    for (int k = 0; k < kKernel; ++k) {
      float* sum = line.sums + k * line.stride + channel;
      store(sum, load(sum) + (sums[0][k] + sums[1][k]));
    }
  }
}

// Any kernel, stride and dilation: tap by tap.
void general_line(const Line& line) {
  const Window& w = line.window;
  for (int channel = 0; channel < line.channels; channel += kLanes) {
    const int channels = line.channels - channel;
    for (int k = 0; k < w.kernel_w; ++k) {
      Vec sum = broadcast(0.0f);
      for (int x = 0; x < line.out_width; ++x) {
        const int column = x * w.stride_w - w.left + k * w.dilation_w;
        if (column < 0 || column >= line.width) continue;
        sum = fma(load_up_to(line.in + column * line.pixel + channel, channels),
                  load_up_to(line.grad + x * line.pixel + channel, channels), sum);
      }
      float* total = line.sums + k * line.stride + channel;
      store(total, load(total) + sum);
    }
  }
}

using LineKernel = void (*)(const Line&);

template <int kKernel>
LineKernel square_kernel(int stride) {
  return stride == 1 ? square_line<kKernel, 1> : square_line<kKernel, 2>;
}

LineKernel line_kernel(const Window& w) {
  if (w.stride_w > 2 || w.dilation_w != 1) return general_line;
  switch (w.kernel_w) {
    case 3:
      return square_kernel<3>(w.stride_w);
    case 5:
      return square_kernel<5>(w.stride_w);
    case 7:
      return square_kernel<7>(w.stride_w);
    default:
      return general_line;
  }
}

void run_task(const DepthwiseConvWgradArgs& a, const Cut& c, int64_t task, float* sums) {
  const int64_t group = task / c.chunks;
  const int channel = static_cast<int>(task % c.chunks) * c.chunk;
  Line line;
  line.window = a.window;
  line.pixel = a.in.channels;
  line.width = a.in.width;
  line.out_width = a.out.width;
  line.channels = smaller(c.chunk, a.out.channels - channel);
  line.stride = c.padded_channels();
  sums += group * c.taps * line.stride + channel;
  for (int tap = 0; tap < c.taps; ++tap) {
    for (int i = 0; i < c.chunk; i += kLanes) store(sums + tap * line.stride + i, broadcast(0.0f));
  }
  const LineKernel kernel = line_kernel(a.window);
  const int64_t in_row = static_cast<int64_t>(a.in.width) * a.in.channels;
  const int64_t out_row = static_cast<int64_t>(a.out.width) * a.out.channels;
  const int64_t end = c.rows * (group + 1) / c.groups;
  for (int64_t row = c.rows * group / c.groups; row < end; ++row) {
    const float* x = a.x + row / a.out.height * a.in.height * in_row + channel;
    const void* rows[kMaxKernelRows];
    rows_under(a.window, static_cast<int>(row % a.out.height), a.in.height, reinterpret_cast<const char*>(x),
               0, in_row * static_cast<int64_t>(sizeof(float)), rows);
    line.grad = a.grad + row * out_row + channel;
    for (int k = 0; k < a.window.kernel_h; ++k) {
      if (rows[k] == nullptr) continue;
      line.in = static_cast<const float*>(rows[k]);
      line.sums = sums + k * a.window.kernel_w * line.stride;
      kernel(line);
    }
  }
}

// Adds the groups' sums of one vector of channels, and writes them channel by channel.
void finish(const DepthwiseConvWgradArgs& a, const Cut& c, int channel, const float* sums) {
  const int channels = smaller(kLanes, a.out.channels - channel);
  const int64_t stride = c.padded_channels();
  float* weight = a.weight + static_cast<int64_t>(channel) * c.taps;
  for (int tap = 0; tap < c.taps; ++tap) {
    Vec total = broadcast(0.0f);
    for (int64_t group = 0; group < c.groups; ++group) {
      total = total + load(sums + (group * c.taps + tap) * stride + channel);
    }
    float lanes[kLanes];
    store(lanes, total);
    for (int i = 0; i < channels; ++i) weight[static_cast<int64_t>(i) * c.taps + tap] = lanes[i];
  }
}

void run(const DepthwiseConvWgradArgs& a, float* sums, const Threads& threads) {
  const Cut c = cut(a);
  take_turns(c.groups * c.chunks, threads, [&](int64_t task, int) { run_task(a, c, task, sums); });
  share_evenly(divide_up(a.out.channels, kLanes), threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) finish(a, c, static_cast<int>(i) * kLanes, sums);
  });
}

}  // namespace

constinit const Op<DepthwiseConvWgradArgs> depthwise_conv_wgrad{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
