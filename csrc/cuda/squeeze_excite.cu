// squeeze_excite: means of the map, the gate, and the map times the gate: two passes over memory.

#include "cuda/squeeze_excite.h"

#include <type_traits>

#include "cuda/common/elements.cuh"
#include "cuda/common/fold.cuh"
#include "cuda/common/pool.cuh"
#include "cuda/squeeze_excite_gate.h"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 256;
// Pixels of a block: 8 for each thread where a chunk has 128 bytes.
constexpr int kPixels = 256;

// How a map is cut into blocks: a band of pixels of a chunk of channels of an image.
struct Plan {
  int64_t pixels;
  int channels, chunk, chunks, bands;
  bool vectors;
};

template <class T>
Plan make_plan(const SqueezeExciteArgs& a) {
  Plan p;
  p.pixels = a.in.pixels();
  p.channels = a.in.channels;
  const int most = 128 / static_cast<int>(sizeof(T));
  p.chunk = round_up(divide_up(p.channels, divide_up(p.channels, most)), kVector<T>);
  p.chunks = divide_up(p.channels, p.chunk);
  p.bands = static_cast<int>(divide_up<int64_t>(p.pixels, kPixels));
  p.vectors = aligned<T, kVector<T>>(a.x, p.channels) && aligned<T, kVector<T>>(a.y, p.channels);
  return p;
}

// The place of a thread: 16 bytes of channels, and one pixel in `groups`.
template <class T>
struct Thread {
  int64_t image, first_pixel, end_pixel;
  int lane, group, groups, band, channel, there;

  EFFKERNELS_DEVICE explicit Thread(const Plan& p) {
    int64_t rest = block_index();
    const int chunk = static_cast<int>(rest % p.chunks) * p.chunk;
    rest /= p.chunks;
    band = static_cast<int>(rest % p.bands);
    image = rest / p.bands;
    const int lanes = p.chunk / kVector<T>;
    lane = thread_index() % lanes;
    group = thread_index() / lanes;
    groups = kThreads / lanes;
    channel = chunk + lane * kVector<T>;
    there = group < groups ? p.channels - channel : 0;
    first_pixel = int64_t{band} * kPixels + group;
    end_pixel = smaller(int64_t{band} * kPixels + kPixels, p.pixels);
  }
};

template <class T>
EFFKERNELS_KERNEL(kThreads, 4)
squeeze_nhwc_fwd_kernel(const Plan p, const T* x, float* sums) {
  const Thread<T> me(p);
  float total[kVector<T>] = {};
  if (me.there > 0) {
    const T* first = x + me.image * p.pixels * p.channels + me.channel;
#pragma unroll 4
    for (int64_t i = me.first_pixel; i < me.end_pixel; i += me.groups) {
      float pixel[kVector<T>];
      load(first + i * p.channels, p.vectors, me.there, pixel);
      for (int e = 0; e < kVector<T>; ++e) total[e] += pixel[e];
    }
  }
  const int chunk = me.channel - me.lane * kVector<T>;
  add_groups(total, me.group, me.groups, me.lane, p.chunk, smaller(p.chunk, p.channels - chunk),
             reinterpret_cast<float*>(shared_memory()),
             sums + (me.image * p.bands + me.band) * p.channels + chunk);
}

template <class T>
EFFKERNELS_KERNEL(kThreads, 4)
scale_nhwc_fwd_kernel(const Plan p, const T* x, const float* gate, T* y) {
  const Thread<T> me(p);
  if (me.there <= 0) return;
  float factor[kVector<T>];
  load(gate + me.image * p.channels + me.channel, false, me.there, factor);
  const int64_t first = me.image * p.pixels * p.channels + me.channel;
#pragma unroll 4
  for (int64_t i = me.first_pixel; i < me.end_pixel; i += me.groups) {
    float pixel[kVector<T>];
    load(x + first + i * p.channels, p.vectors, me.there, pixel);
    for (int e = 0; e < kVector<T>; ++e) pixel[e] *= factor[e];
    store(y + first + i * p.channels, p.vectors, me.there, pixel);
  }
}

template <class T>
const char* run(const SqueezeExciteArgs& a, float* workspace, const Stream& stream) {
  const Plan p = make_plan<T>(a);
  const int64_t images = a.in.images;
  const T* x = static_cast<const T*>(a.x);
  float* sums = workspace;
  float* pooled = sums + images * p.bands * p.channels;
  float* gate = pooled + images * p.channels;
  const int64_t totals = int64_t{kThreads} * kVector<T> * 4;
  const Grid grid{"squeeze_nhwc_fwd", images * p.bands * p.chunks, kThreads, totals};
  const char* error = launch(squeeze_nhwc_fwd_kernel<T>, grid, stream, p, x, sums);
  if (error == nullptr) {
    const PartialSums partial{sums, p.bands, p.pixels, pooled};
    error = squeeze_excite_gate_of_sums(a.gate.with(images, nullptr, gate), partial, stream);
  }
  if (error != nullptr) return error;
  return launch(scale_nhwc_fwd_kernel<T>, {"scale_nhwc_fwd", grid.blocks, kThreads, 0}, stream, p, x,
                static_cast<const float*>(gate), static_cast<T*>(a.y));
}

}  // namespace

int64_t squeeze_excite_workspace(const SqueezeExciteArgs& a) {
  return a.in.images * a.in.channels * (make_plan<float>(a).bands + 2);
}

const char* squeeze_excite(const SqueezeExciteArgs& a, float* workspace, const Stream& stream) {
  if (const char* reason = refusal(a.gate)) return reason;
  if (a.in.images == 0) return nullptr;
  return with_dtype(
      a.dtype, [&](auto* type) { return run<std::remove_pointer_t<decltype(type)>>(a, workspace, stream); });
}

}  // namespace effkernels::cuda
