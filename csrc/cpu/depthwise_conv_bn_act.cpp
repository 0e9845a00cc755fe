// depthwise_conv_bn_act(_pool): each row of the result is computed directly from the input.

#include "cpu/isa/depthwise_row.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Channels per task: enough to read contiguous stretches of memory, few enough that the input rows under the
// kernel stay in the second-level cache.
constexpr int kChunk = 128;

// A task is a band of rows of one chunk of channels of one image.
struct Cut {
  int chunk, chunks;
  int band_rows, bands;
  int64_t images;

  int64_t tasks() const { return images * chunks * bands; }
};

Cut cut(const DepthwiseConvBnActArgs& a, int threads) {
  Cut c;
  c.chunk = smaller(kChunk, round_up(a.out.channels, kLanes));
  c.chunks = divide_up(a.out.channels, c.chunk);
  c.images = a.out.images;
  // Four tasks per thread even out the load of other programs; but a band also reads rows of its neighbours.
  const int64_t wanted = divide_up<int64_t>(4 * threads, larger<int64_t>(1, c.images * c.chunks));
  const int longest = divide_up<int>(a.out.height, static_cast<int>(smaller<int64_t>(wanted, a.out.height)));
  c.band_rows = smaller(a.out.height, larger(longest, 2 * a.window.kernel_h));
  c.bands = divide_up(a.out.height, c.band_rows);
  return c;
}

struct Memory {
  float *weights, *scale, *shift;
};

Memory memory(Scratch& scratch, const DepthwiseConvBnActArgs& a, const Cut& c) {
  Memory m;
  m.weights = scratch.take(static_cast<int64_t>(a.window.kernel_h) * a.window.kernel_w * c.chunk);
  m.scale = scratch.take(c.chunk);
  m.shift = scratch.take(c.chunk);
  return m;
}

int64_t padded_channels(const Cut& c) { return static_cast<int64_t>(c.chunks) * c.chunk; }

// The sums of each band of each image, which are then added in order.
int64_t sums_floats(const DepthwiseConvBnActArgs& a, const Cut& c) {
  return a.mean == nullptr ? 0 : c.images * c.bands * padded_channels(c);
}

int64_t scratch_floats(const DepthwiseConvBnActArgs& a, int threads) {
  const Cut c = cut(a, threads);
  Scratch one(nullptr), sums(nullptr);
  memory(one, a, c);
  sums.take(sums_floats(a, c));
  return sums.used() + one.used() * workers_for(c.tasks(), Threads{threads, nullptr});
}

void run_task(const DepthwiseConvBnActArgs& a, const Cut& c, const Memory& m, int64_t task, float* sums) {
  const int band = static_cast<int>(task % c.bands), chunk = static_cast<int>(task / c.bands % c.chunks);
  const int64_t image = task / c.bands / c.chunks;
  const int channel = chunk * c.chunk;
  const int channels = smaller(c.chunk, a.out.channels - channel);
  const int taps = a.window.kernel_h * a.window.kernel_w;
  DepthwiseRow row;
  row.window = a.window;
  row.pixel = a.in.channels;
  row.width = a.in.width;
  row.margin = 0;
  row.channels = channels;
  row.chunk = round_up(channels, kLanes);
  pack_folded(a.weight, a.dtype, channel, channels, taps, a.norm, nullptr, row.chunk, m.weights, m.scale,
              m.shift);
  row.weights = m.weights;
  row.shift = m.shift;
  row.activation = a.activation;
  row.dtype = a.dtype;
  row.out_pixel = a.out.channels;
  row.out_width = a.out.width;
  row.sums = sums == nullptr ? nullptr : sums + (image * c.bands + band) * padded_channels(c) + channel;
  if (row.sums != nullptr) {
    for (int i = 0; i < row.chunk; i += kLanes) store(row.sums + i, broadcast(0.0f));
  }
  const int element = size_of(a.dtype);
  const int64_t in_row = static_cast<int64_t>(a.in.width) * a.in.channels * element;
  const int64_t out_row = static_cast<int64_t>(a.out.width) * a.out.channels * element;
  const char* x = static_cast<const char*>(a.x) + image * a.in.height * in_row + channel * element;
  char* y = static_cast<char*>(a.y) + image * a.out.height * out_row + channel * element;
  const void* rows[kMaxKernelRows];
  row.rows = rows;
  const DepthwiseRowKernel kernel = depthwise_row_kernel(a.window, a.out.width, a.dtype, a.dtype);
  const int end = smaller(a.out.height, (band + 1) * c.band_rows);
  for (int i = band * c.band_rows; i < end; ++i) {
    rows_under(a.window, i, a.in.height, x, 0, in_row, rows);
    row.out = y + i * out_row;
    kernel(row);
  }
}

void run(const DepthwiseConvBnActArgs& a, float* scratch, const Threads& threads) {
  const Cut c = cut(a, threads.count);
  Scratch all(scratch);
  float* sums = a.mean == nullptr ? nullptr : all.take(sums_floats(a, c));
  Scratch one(nullptr);
  memory(one, a, c);
  float* rest = scratch + all.used();
  take_turns(c.tasks(), threads, [&](int64_t task, int worker) {
    Scratch mine(rest + one.used() * worker);
    run_task(a, c, memory(mine, a, c), task, sums);
  });
  if (a.mean != nullptr) mean_of_bands(sums, c.images, c.bands, padded_channels(c), a.out, a.mean);
}

}  // namespace

constinit const Op<DepthwiseConvBnActArgs> depthwise_conv_bn_act{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
