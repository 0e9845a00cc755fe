// conv_bn_act: the dense convolution. A row of the result is a product of the pixels under the kernel with
// the weights: in NHWC the pixels of one kernel row are contiguous.

#include "cpu/isa/activation.h"
#include "cpu/isa/dense.h"
#include "cpu/isa/depthwise_row.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"
#include "cpu/isa/product.h"
#include "cpu/runtime/clock.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

constexpr int kStripPixels = 24;

struct Cut {
  int width, chunks;
  int64_t tasks;   // rows of the result, once for each chunk of output channels
  int parts;       // contiguous stretches of input under the kernel
  int part;        // floats of each part
  int taps;        // floats of all parts: the rows of a chunk's packed weights
  int row_floats;  // of a padded input row
};

Cut cut(const ConvBnActArgs& a) {
  const Window& w = a.window;
  Cut c;
  c.width = chunk_width(a.out.channels);
  c.chunks = divide_up(a.out.channels, c.width);
  c.tasks = c.chunks * a.out.images * a.out.height;
  const bool dense = w.dilation_w == 1;
  c.parts = dense ? w.kernel_h : w.kernel_h * w.kernel_w;
  c.part = dense ? w.kernel_w * a.in.channels : a.in.channels;
  c.taps = w.kernel_h * w.kernel_w * a.in.channels;
  c.row_floats = ((a.out.width - 1) * w.stride_w + (w.kernel_w - 1) * w.dilation_w + 1) * a.in.channels;
  return c;
}

struct Memory {
  float *packed, *scale, *shift, *strip, *rows;
  float* centre;   // what to subtract from each element of an input row
  float* inverse;  // 1 / standard deviation of each input channel
  const float** parts;
  Clock clock;
};

Memory memory(Scratch& scratch, const ConvBnActArgs& a, const Cut& c) {
  Memory m;
  m.packed = scratch.take(static_cast<int64_t>(c.taps) * c.width);
  m.scale = scratch.take(c.width);
  m.shift = scratch.take(c.width);
  m.strip = scratch.take(kStripPixels * c.width);
  m.rows = scratch.take(static_cast<int64_t>(a.window.kernel_h) * c.row_floats);
  m.centre = scratch.take(c.row_floats);
  m.inverse = scratch.take(a.in.channels);
  m.parts = reinterpret_cast<const float**>(scratch.take(2 * c.parts));
  return m;
}

int64_t scratch_floats(const ConvBnActArgs& a, int threads) {
  const Cut c = cut(a);
  Scratch one(nullptr);
  memory(one, a, c);
  return one.used() * workers_for(c.tasks, Threads{threads, nullptr});
}

// Normalisation of images: deviations are folded into the weights, means are subtracted as rows are read.
void read_image_norm(const ConvBnActArgs& a, const Cut& c, const Memory& m) {
  const int channels = a.in.channels;
  const bool normalised = a.image_mean.data != nullptr;
  for (int i = 0; i < channels; i += kLanes) {
    const int count = smaller(kLanes, channels - i);
    Vec mean = broadcast(0.0f), inverse = broadcast(1.0f);
    if (normalised) {
      mean = load_parameters(a.image_mean, i, count);
      inverse = inverse / load_parameters(a.image_std, i, count);
    }
    store_up_to(m.centre + i, mean, count);
    store_up_to(m.inverse + i, inverse, count);
  }
  for (int i = channels; i < c.row_floats; ++i) m.centre[i] = m.centre[i - channels];
}

// The weights of `channels` output channels from `first`, scaled, in memory order: [kernel row][column][in].
void pack(const ConvBnActArgs& a, const Memory& m, int first, int channels, int width) {
  fold_norm(a.norm, first, channels, m.scale, m.shift);
  with_dtype(a.dtype, [&](const auto* type) {
    const auto* weight = static_cast<decltype(type)>(a.weight) + first * a.weight_strides[0];
    float* out = m.packed;
    for (int y = 0; y < a.window.kernel_h; ++y) {
      for (int x = 0; x < a.window.kernel_w; ++x) {
        for (int i = 0; i < a.in.channels; ++i, out += width) {
          const auto* tap =
              weight + i * a.weight_strides[1] + y * a.weight_strides[2] + x * a.weight_strides[3];
          const float inverse = m.inverse[i];
          for (int o = 0; o < width; ++o) {
            out[o] = o < channels ? widen(tap[o * a.weight_strides[0]]) * (m.scale[o] * inverse) : 0.0f;
          }
        }
      }
    }
  });
}

// Calls f with a null pointer to the images' element type.
template <class F>
void with_image_type(const ConvBnActArgs& a, const F& f) {
  if (a.bytes) {
    f(static_cast<const uint8_t*>(nullptr));
  } else {
    with_dtype(a.dtype, f);
  }
}

#if defined(__AVX2__)
// Pixels of three channels from planes that are `plane` elements apart. With all three in one loop compilers
// use shuffles: 0.22 (AVX-512) to 0.43 (AVX2) of the time of one plane after the other, but without AVX2 up
// to 1.7.
template <class T>
void interleave_three(const T* __restrict__ in, int64_t plane, const float* centre, int count,
                      float* __restrict__ row) {
  const T *second = in + plane, *third = second + plane;
  const float a = centre[0], b = centre[1], c = centre[2];
  for (int i = 0; i < count; ++i) {
    row[3 * i] = widen(in[i]) - a;
    row[3 * i + 1] = widen(second[i]) - b;
    row[3 * i + 2] = widen(third[i]) - c;
  }
}
#endif

// Interleaves the first `count` pixels of row `y` of an image from its planes.
void gather_planes(const ConvBnActArgs& a, const float* centre, int64_t image, int y, int count, float* row) {
  const int channels = a.in.channels;
  with_image_type(a, [&](const auto* type) {
#if defined(__AVX2__)
    if (channels == 3) {
      const auto* in = static_cast<decltype(type)>(a.x) + (image * 3 * a.in.height + y) * a.in.width;
      return interleave_three(in, a.in.pixels(), centre, count, row);
    }
#endif
    for (int c = 0; c < channels; ++c) {
      const int64_t plane = (image * channels + c) * a.in.height + y;
      const auto* in = static_cast<decltype(type)>(a.x) + plane * a.in.width;
      const float mean = centre[c];
      for (int i = 0; i < count; ++i) row[i * channels + c] = widen(in[i]) - mean;
    }
  });
}

// The same for an image in NHWC.
void gather_pixels(const ConvBnActArgs& a, const float* centre, int64_t image, int y, int count, float* row) {
  const int64_t at = (image * a.in.height + y) * a.in.width * a.in.channels;
  const int floats = count * a.in.channels;
  if (a.bytes) {
    const uint8_t* in = static_cast<const uint8_t*>(a.x) + at;
    for (int i = 0; i < floats; ++i) row[i] = widen(in[i]) - centre[i];
    return;
  }
  widen_row(a.x, a.dtype, at, floats, nullptr, row);
  if (a.image_mean.data == nullptr) return;
  for (int i = 0; i < floats; ++i) row[i] -= centre[i];
}

// The input rows under row `y` of the result, as floats, with zeros for the padding.
void gather_rows(const ConvBnActArgs& a, const Cut& c, const Memory& m, int64_t image, int y) {
  const Window& w = a.window;
  const int channels = a.in.channels;
  const int columns = c.row_floats / channels;
  const int begin = smaller(columns, w.left), end = smaller(columns, w.left + a.in.width);
  for (int i = 0; i < w.kernel_h; ++i) {
    float* row = m.rows + static_cast<int64_t>(i) * c.row_floats;
    const int in_y = y * w.stride_h - w.top + i * w.dilation_h;
    const bool inside = in_y >= 0 && in_y < a.in.height;
    const int from = inside ? begin : columns, to = inside ? end : columns;
    for (int j = 0; j < from * channels; ++j) row[j] = 0.0f;
    if (inside && a.planar) {
      gather_planes(a, m.centre, image, in_y, to - from, row + from * channels);
    } else if (inside) {
      gather_pixels(a, m.centre, image, in_y, to - from, row + from * channels);
    }
    for (int j = to * channels; j < columns * channels; ++j) row[j] = 0.0f;
  }
}

void run_row(const ConvBnActArgs& a, const Cut& c, const Memory& m, int64_t image, int y, int channel,
             int channels, int width) {
  const Window& w = a.window;
  gather_rows(a, c, m, image, y);
  m.clock.lap(Work::kRows);
  for (int p = 0; p < c.parts; ++p) {
    const bool dense = w.dilation_w == 1;
    const int row = dense ? p : p / w.kernel_w, column = dense ? 0 : p % w.kernel_w * w.dilation_w;
    m.parts[p] = m.rows + static_cast<int64_t>(row) * c.row_floats + column * a.in.channels;
  }
  const Rows rows{m.parts, c.parts, c.part, static_cast<int64_t>(w.stride_w) * a.in.channels};
  const int64_t first = (image * a.out.height + y) * a.out.width;
  Ahead ahead;
  for (int x = 0; x < a.out.width; x += kStripPixels) {
    const int count = smaller(kStripPixels, a.out.width - x);
    multiply(rows, x, count, m.packed, width, m.shift, m.strip, width, ahead);
    m.clock.lap(Work::kProduct);
    activate(a.activation, a.dtype, m.strip, static_cast<int64_t>(count) * width, m.strip);
    m.clock.lap(Work::kActivation);
    store_rows(a.dtype, m.strip, count, width, channels, nullptr, a.y, (first + x) * a.out.channels + channel,
               a.out.channels);
    m.clock.lap(Work::kOutput);
  }
}

void run(const ConvBnActArgs& a, float* scratch, const Threads& threads) {
  const Cut c = cut(a);
  const int64_t rows = a.out.images * a.out.height;
  share_evenly(c.tasks, threads, [&](int64_t begin, int64_t end, int worker) {
    Scratch one(nullptr);
    memory(one, a, c);
    Scratch mine(scratch + one.used() * worker);
    Memory m = memory(mine, a, c);
    m.clock = Clock(threads, worker);
    read_image_norm(a, c, m);
    for (int64_t task = begin; task < end; ++task) {
      const int channel = static_cast<int>(task / rows) * c.width;
      const int channels = smaller(c.width, a.out.channels - channel);
      const int width = round_up(channels, kLanes);
      if (task == begin || task % rows == 0) {
        pack(a, m, channel, channels, width);
        m.clock.lap(Work::kPacking);
      }
      run_row(a, c, m, task % rows / a.out.height, static_cast<int>(task % a.out.height), channel, channels,
              width);
    }
  });
}

}  // namespace

constinit const Op<ConvBnActArgs> conv_bn_act{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
