// mbconv: a whole inference block. The expanded map E is never written to memory: for one chunk of its
// channels, a few rows at a time are expanded into a buffer that stays in the cache, and convolved from
// there. The result of the depthwise convolution (D) is kept in the workspace until the gate is known, for
// as many images as fit into the caches.

#include "cpu/isa/activation.h"
#include "cpu/isa/dense.h"
#include "cpu/isa/depthwise_row.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"
#include "cpu/isa/pairs.h"
#include "cpu/isa/product.h"
#include "cpu/runtime/clock.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Pixels that are expanded and activated together, in the first-level cache.
constexpr int kStripPixels = 24;
// The same of products of pairs.
constexpr int kPairStripPixels = PairProduct::kRows;
// Floats of a worker's buffer of expanded rows, and of D per worker. Measured on a machine with second-level
// caches of 1 MB.
constexpr int64_t kBufferFloats = 48 << 10;
constexpr int64_t kWideFloats = 256 << 10;

struct Plan {
  bool expands;
  int64_t group;  // images that go through the block together
  int width, chunks;
  int band_rows, bands;  // of the depthwise result; each image and chunk has a task per band
  int buffer_rows;       // expanded rows in a worker's buffer
  int margin;            // pixels of zeros before, between and after the rows
  int workers;
  int64_t padded;  // expanded channels in whole chunks: floats from one pixel of D to the next

  int64_t tasks(int64_t images) const { return images * chunks * bands; }
};

// The approximate nanoseconds that a worker spends on a task, by which plans are compared.
int64_t task_cost(const MbconvArgs& a, int vectors, int band_rows) {
  const Window& w = a.window;
  const int64_t in_rows = smaller<int64_t>(a.in.height, (band_rows - 1) * w.stride_h + w.kernel_h);
  // Tiles count as 10 to 11 times as fast as vectors; a partly filled last tile costs as much as a full one.
  const int terms = round_up(a.in.channels, kPairTerms);
  const int64_t product = by_pairs(a.dtype) && kHasTiles ? divide_up(terms * (vectors + 1), 4)
                                                         : a.in.channels * (vectors * 3 + 2);
  const int64_t expand = in_rows * a.in.width * (product + vectors * 20);
  const int64_t depthwise =
      static_cast<int64_t>(band_rows) * a.out.width * vectors * (w.kernel_h * w.kernel_w * 3 + 20);
  const int64_t pack = static_cast<int64_t>(a.in.channels) * vectors * 9;
  return (a.expand_weight != nullptr ? expand + pack : 0) + depthwise + 500;
}

Plan make_plan(const MbconvArgs& a, int threads) {
  Plan p;
  p.workers = threads;
  p.expands = a.expand_weight != nullptr;
  const int64_t wide = a.out.pixels() * a.expanded;
  p.group =
      larger<int64_t>(1, smaller<int64_t>(a.in.images, threads * kWideFloats / larger<int64_t>(1, wide)));
  // The chunk and the band for which the slowest worker finishes first.
  int64_t best = INT64_MAX;
  for (int vectors = 1; vectors <= kMaxChunkVectors; ++vectors) {
    for (int bands = 1; bands <= a.out.height && bands <= 4 * threads; bands = bands == 1 ? 2 : bands + 2) {
      const int band_rows = divide_up(a.out.height, bands);
      const int chunks = divide_up(a.expanded, vectors * kLanes);
      const int64_t tasks = p.group * chunks * divide_up(a.out.height, band_rows);
      const int64_t cost = divide_up<int64_t>(tasks, threads) * task_cost(a, vectors, band_rows);
      if (cost < best) {
        best = cost;
        p.width = vectors * kLanes;
        p.chunks = chunks;
        p.band_rows = band_rows;
        p.bands = divide_up(a.out.height, band_rows);
      }
    }
  }
  p.padded = static_cast<int64_t>(p.chunks) * p.width;
  p.margin = depthwise_margin(a.window, a.in.width, a.out.width);
  const int64_t row = static_cast<int64_t>(a.in.width + p.margin) * p.width;
  const int64_t least = a.window.kernel_h + a.window.stride_h;
  p.buffer_rows =
      static_cast<int>(smaller<int64_t>(a.in.height, larger<int64_t>(least, kBufferFloats / row)));
  return p;
}

// Memory of one worker.
struct Memory {
  float *expand, *expand_scale, *expand_shift, *weights, *scale, *shift, *buffer, *strip, *pixels;
  Clock clock;
};

// Layout of the buffer: a margin, then rows, each followed by a margin.
int64_t buffer_floats(const MbconvArgs& a, const Plan& p, int width) {
  return (static_cast<int64_t>(p.buffer_rows) * (a.in.width + p.margin) + p.margin) * width;
}

Memory memory(Scratch& scratch, const MbconvArgs& a, const Plan& p) {
  Memory m;
  const bool pairs = by_pairs(a.dtype);
  m.expand = scratch.take(p.expands ? packed_floats(a.in.channels, p.width, a.dtype) : 0);
  m.expand_scale = scratch.take(p.width);
  m.expand_shift = scratch.take(p.width);
  m.weights = scratch.take(static_cast<int64_t>(a.window.kernel_h) * a.window.kernel_w * p.width);
  m.scale = scratch.take(p.width);
  m.shift = scratch.take(p.width);
  m.buffer = scratch.take(p.expands ? buffer_floats(a, p, p.width) : 0);
  m.strip = scratch.take(p.expands ? int64_t{pairs ? kPairStripPixels : kStripPixels} * p.width : 0);
  const bool widens = p.expands && !pairs && a.dtype != Dtype::kFloat;
  m.pixels = scratch.take(widens ? int64_t{kStripPixels} * a.in.channels : 0);
  return m;
}

// Memory shared by all workers, for one group of images.
struct Shared {
  float *wide, *sums, *pooled, *gate, *rest;
  int64_t used;
};

Shared shared(float* scratch, const MbconvArgs& a, const Plan& p) {
  const bool gated = a.gate.squeezed > 0;
  Scratch all(scratch);
  Shared s;
  s.wide = all.take(p.group * a.out.pixels() * p.padded);
  s.sums = all.take(gated ? p.group * p.bands * p.padded : 0);
  s.pooled = all.take(gated ? p.group * a.expanded : 0);
  s.gate = all.take(gated ? p.group * a.expanded : 0);
  s.used = all.used();
  s.rest = scratch == nullptr ? nullptr : scratch + s.used;
  return s;
}

Dense project(const MbconvArgs& a, const Plan& p, const Shared& s, int64_t first, int64_t images) {
  const int64_t in_image = a.in.pixels() * a.in.channels, out_image = a.out.pixels() * a.out.channels;
  const int element = size_of(a.dtype);
  return {.x = s.wide,
          .x_dtype = Dtype::kFloat,
          .row_stride = p.padded,
          .images = images,
          .pixels = a.out.pixels(),
          .in_channels = a.expanded,
          .out_channels = a.out.channels,
          .weight = a.project_weight,
          .norm = a.project_norm,
          .gate = a.gate.squeezed > 0 ? s.gate : nullptr,
          .activation = Activation::kIdentity,
          .residual = a.residual ? static_cast<const char*>(a.x) + first * in_image * element : nullptr,
          .y = static_cast<char*>(a.y) + first * out_image * element,
          .dtype = a.dtype,
          .mean = nullptr};
}

int64_t scratch_floats(const MbconvArgs& a, int threads) {
  const Plan p = make_plan(a, threads);
  const Shared s = shared(nullptr, a, p);
  Scratch one(nullptr);
  memory(one, a, p);
  // The three steps run one after the other, and share the same memory.
  int64_t rest = one.used() * workers_for(p.tasks(p.group), Threads{threads, nullptr});
  rest = larger(rest, squeeze_excite_gate.scratch_floats(a.gate.with(p.group, s.pooled, s.gate), threads));
  // The last group may be smaller, and be planned differently.
  const int64_t groups[] = {1, p.group};
  for (const int64_t images : groups) {
    Dense last = project(a, p, s, 0, images);
    const float any = 1.0f;  // only whether the gate is null matters here
    last.gate = a.gate.squeezed > 0 ? &any : nullptr;
    rest = larger(rest, dense_scratch(last, threads));
  }
  return s.used + rest;
}

// Expands `count` pixels from `first` into the strip, one chunk of channels, before their activation.
void expand_strip(const MbconvArgs& a, const Memory& m, PairProduct& product, int64_t first, int count,
                  int width, Ahead& ahead) {
  const int channels = a.in.channels;
  if (by_pairs(a.dtype)) {
    const PairRows rows{static_cast<const BFloat16*>(a.x) + first * channels, channels, channels};
    product.multiply(rows, count, m.expand, width, m.strip, ahead);
    return m.clock.lap(Work::kProduct);
  }
  const float* x = static_cast<const float*>(a.x) + first * channels;
  if (a.dtype != Dtype::kFloat) {
    for (int i = 0; i < count; ++i) {
      widen_row(a.x, a.dtype, (first + i) * channels, channels, nullptr, m.pixels + i * channels);
    }
    x = m.pixels;
    m.clock.lap(Work::kRows);
  }
  multiply(Rows{&x, 1, channels, channels}, 0, count, m.expand, width, m.expand_shift, m.strip, width, ahead);
  m.clock.lap(Work::kProduct);
}

// Expands rows [begin, end) of an image, one chunk of channels, into rows of the buffer.
void expand_rows(const MbconvArgs& a, const Plan& p, const Memory& m, PairProduct& product, int64_t image,
                 int begin, int end, int width, float* rows, Ahead& ahead) {
  const bool pairs = by_pairs(a.dtype);
  const int strip = pairs ? kPairStripPixels : kStripPixels;
  const int64_t first = (image * a.in.height + begin) * a.in.width;
  const int64_t pixels = static_cast<int64_t>(end - begin) * a.in.width;
  int column = 0;
  for (int64_t i = 0; i < pixels; i += strip) {
    const int count = static_cast<int>(smaller<int64_t>(strip, pixels - i));
    expand_strip(a, m, product, first + i, count, width, ahead);
    for (int done = 0; done < count;) {
      const int some = smaller(count - done, a.in.width - column);
      const float* from = m.strip + done * width;
      float* to = rows + column * width;
      if (pairs) {
        activate_scaled(a.activation, a.dtype, from, some, width, m.expand_scale, m.expand_shift, to);
      } else {
        activate(a.activation, a.dtype, from, static_cast<int64_t>(some) * width, to);
      }
      done += some;
      column += some;
      if (column == a.in.width) {
        column = 0;
        rows += static_cast<int64_t>(a.in.width + p.margin) * width;
      }
    }
    m.clock.lap(Work::kActivation);
  }
}

// Prefetches for the task that this worker probably takes next, because the other workers take those in
// between: BatchNorm's parameters and the depthwise weights now; the expansion's weights are returned, for
// products to prefetch. At the end of a group of one image it is the projection's first chunk.
Ahead weights_after(const MbconvArgs& a, const Plan& p, int64_t task) {
  const int64_t next = task + p.workers;
  if (p.group > 1 || next < p.tasks(1)) {
    const int first = static_cast<int>(next / p.bands % p.chunks) * p.width;
    const int channels = smaller(p.width, a.expanded - first);
    const int64_t taps = static_cast<int64_t>(a.window.kernel_h) * a.window.kernel_w * size_of(a.dtype);
    prefetch(static_cast<const char*>(a.depthwise_weight) + first * taps, channels * taps);
    prefetch_norm(a.depthwise_norm, first, channels);
    if (!p.expands) return {};
    prefetch_norm(a.expand_norm, first, channels);
    return weights_ahead(a.expand_weight, a.dtype, first, a.expanded, a.in.channels, p.width);
  }
  const int width = chunk_width(a.out.channels);
  prefetch_norm(a.project_norm, 0, smaller(width, a.out.channels));
  return weights_ahead(a.project_weight, a.dtype, 0, a.out.channels, a.expanded, width);
}

void run_task(const MbconvArgs& a, const Plan& p, const Memory& m, const Shared& s, int64_t group_first,
              int64_t task) {
  const int band = static_cast<int>(task % p.bands), chunk = static_cast<int>(task / p.bands % p.chunks);
  const int64_t image = task / p.bands / p.chunks;
  const int channel = chunk * p.width;
  const int channels = smaller(p.width, a.expanded - channel);
  const int width = round_up(channels, kLanes);
  const Window& w = a.window;
  pack_folded(a.depthwise_weight, a.dtype, channel, channels, w.kernel_h * w.kernel_w, a.depthwise_norm,
              nullptr, width, m.weights, m.scale, m.shift);
  if (p.expands) {
    pack_product(a.expand_weight, a.dtype, channel, channels, a.in.channels, a.expand_norm, nullptr, width,
                 m.expand, m.expand_scale, m.expand_shift);
  }
  m.clock.lap(Work::kPacking);
  const void* rows[kMaxKernelRows];
  DepthwiseRow row;
  row.window = w;
  row.rows = rows;
  row.pixel = p.expands ? width : a.in.channels;
  row.width = a.in.width;
  row.margin = p.expands ? p.margin : 0;
  row.channels = p.expands ? width : channels;
  row.weights = m.weights;
  row.shift = m.shift;
  row.chunk = width;
  row.activation = a.activation;
  row.dtype = a.dtype;
  row.out_pixel = p.padded;
  row.out_width = a.out.width;
  row.sums = a.gate.squeezed == 0 ? nullptr : s.sums + (image * p.bands + band) * p.padded + channel;
  if (row.sums != nullptr) {
    for (int i = 0; i < width; i += kLanes) store(row.sums + i, broadcast(0.0f));
  }
  Ahead ahead = weights_after(a, p, task);
  const Dtype in_dtype = p.expands ? Dtype::kFloat : a.dtype;
  const DepthwiseRowKernel kernel = depthwise_row_kernel(w, a.out.width, in_dtype, Dtype::kFloat);
  float* wide = s.wide + image * a.out.pixels() * p.padded + channel;
  const int64_t in_row = static_cast<int64_t>(a.in.width + row.margin) * row.pixel;
  const int out_end = smaller(a.out.height, (band + 1) * p.band_rows);
  if (!p.expands) {
    const int element = size_of(a.dtype);
    const char* x =
        static_cast<const char*>(a.x) + ((group_first + image) * a.in.height * in_row + channel) * element;
    for (int y = band * p.band_rows; y < out_end; ++y) {
      rows_under(w, y, a.in.height, x, 0, in_row * element, rows);
      row.out = wide + static_cast<int64_t>(y) * a.out.width * p.padded;
      kernel(row);
    }
    return m.clock.lap(Work::kDepthwise);
  }
  PairProduct product;
  float* buffer = m.buffer + p.margin * width;
  const int64_t floats = buffer_floats(a, p, width);
  for (int64_t i = 0; i < floats; i += in_row) {
    for (int j = 0; j < p.margin * width; j += kLanes) store(m.buffer + i + j, broadcast(0.0f));
  }
  m.clock.lap(Work::kRows);
  // Input rows [begin, end) are expanded and in the buffer. Each row of the result needs some more rows
  // below; when the buffer is full, the rows that are still needed move to its start.
  int begin = 0, end = 0;
  for (int y = band * p.band_rows; y < out_end; ++y) {
    const int top = y * w.stride_h - w.top;
    const int needed = smaller(a.in.height, top + w.kernel_h);
    if (needed > end) {
      const int first = larger(0, top);
      const int kept = larger(0, end - first);
      if (kept > 0 && first != begin) {
        __builtin_memmove(buffer, buffer + (first - begin) * in_row, kept * in_row * sizeof(float));
      }
      m.clock.lap(Work::kRows);
      begin = first;
      end = first + kept;
      // As many rows as the buffer holds, but none below the band.
      const int last = smaller(a.in.height, (out_end - 1) * w.stride_h - w.top + w.kernel_h);
      const int until = smaller(last, begin + p.buffer_rows);
      expand_rows(a, p, m, product, group_first + image, end, until, width, buffer + kept * in_row, ahead);
      end = until;
    }
    rows_under(w, y, a.in.height, reinterpret_cast<const char*>(buffer), begin,
               in_row * static_cast<int64_t>(sizeof(float)), rows);
    row.out = wide + static_cast<int64_t>(y) * a.out.width * p.padded;
    kernel(row);
    m.clock.lap(Work::kDepthwise);
  }
}

void run(const MbconvArgs& a, float* scratch, const Threads& threads) {
  const Plan p = make_plan(a, threads.count);
  const Shared s = shared(scratch, a, p);
  Scratch one(nullptr);
  memory(one, a, p);
  for (int64_t first = 0; first < a.in.images; first += p.group) {
    const int64_t images = smaller(p.group, a.in.images - first);
    take_turns(p.tasks(images), threads, [&](int64_t task, int worker) {
      Scratch mine(s.rest + one.used() * worker);
      Memory m = memory(mine, a, p);
      m.clock = Clock(threads, worker);
      run_task(a, p, m, s, first, task);
    });
    if (a.gate.squeezed > 0) {
      const Clock clock(threads, 0);
      mean_of_bands(s.sums, images, p.bands, p.padded, {images, a.out.height, a.out.width, a.expanded},
                    s.pooled);
      clock.lap(Work::kGate);
      squeeze_excite_gate.run(a.gate.with(images, s.pooled, s.gate), s.rest, threads);
    }
    run_dense(project(a, p, s, first, images), s.rest, threads);
  }
}

}  // namespace

constinit const Op<MbconvArgs> mbconv{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
