// squeeze_excite: means of the map, the gate, and the map times the gate.

#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Below this many elements of a map, a single thread finishes before others have woken up.
constexpr int64_t kWorthSharing = 1 << 16;

int bands_of(const SqueezeExciteArgs& a, int threads) {
  const int64_t wanted = divide_up<int64_t>(4 * threads, larger<int64_t>(1, a.in.images));
  return static_cast<int>(larger<int64_t>(1, smaller<int64_t>(wanted, a.in.pixels() / 64)));
}

struct Memory {
  float *sums, *pooled, *gate, *rest;
  int64_t used;
};

Memory memory(float* scratch, const SqueezeExciteArgs& a, int threads) {
  Scratch all(scratch);
  Memory m;
  m.sums = all.take(a.in.images * bands_of(a, threads) * round_up(a.in.channels, kLanes));
  m.pooled = all.take(a.in.images * a.in.channels);
  m.gate = all.take(a.in.images * a.in.channels);
  m.used = all.used();
  m.rest = scratch == nullptr ? nullptr : scratch + m.used;
  return m;
}

SqueezeExciteGateArgs gate_of(const SqueezeExciteArgs& a, const Memory& m) {
  return a.gate.with(a.in.images, m.pooled, m.gate);
}

int64_t scratch_floats(const SqueezeExciteArgs& a, int threads) {
  const Memory m = memory(nullptr, a, threads);
  return m.used + squeeze_excite_gate.scratch_floats(gate_of(a, m), threads);
}

// Pixels are summed in short chains, whose sums are then added: long chains round too much.
constexpr int64_t kChain = 64;

// Adds up the first `count` channels of the pixels in sums[0 .. kVectors * kLanes).
template <int kVectors, class T>
void add_chunk(const T* x, int64_t pixels, int channels, int count, float* sums) {
  for (int v = 0; v < kVectors; ++v) store(sums + v * kLanes, broadcast(0.0f));
  for (int64_t begin = 0; begin < pixels; begin += kChain) {
    Vec totals[kVectors];
    for (int v = 0; v < kVectors; ++v) totals[v] = broadcast(0.0f);
    for (int64_t i = begin; i < smaller(pixels, begin + kChain); ++i) {
      const T* pixel = x + i * channels;
      for (int v = 0; v < kVectors - 1; ++v) totals[v] = totals[v] + load(pixel + v * kLanes);
      constexpr int kLast = kVectors - 1;
      totals[kLast] = totals[kLast] + load_up_to(pixel + kLast * kLanes, count - kLast * kLanes);
    }
    for (int v = 0; v < kVectors; ++v) store(sums + v * kLanes, load(sums + v * kLanes) + totals[v]);
  }
}

// Calls add_chunk for the most vectors, out of 1, 2, 4 and 8, that the channels from `first` on fill;
// returns how many.
template <int kVectors, class T>
int add_widest(const T* x, int64_t pixels, int channels, int first, float* sums) {
  if constexpr (kVectors > 1) {
    if (divide_up(channels - first, kLanes) < kVectors) {
      return add_widest<kVectors / 2>(x, pixels, channels, first, sums);
    }
  }
  add_chunk<kVectors>(x + first, pixels, channels, channels - first, sums + first);
  return kVectors;
}

template <class T>
void add_pixels(const T* x, int64_t pixels, int channels, float* sums) {
  for (int first = 0; first < channels;) first += kLanes * add_widest<8>(x, pixels, channels, first, sums);
}

template <class T>
void scale_pixels(const T* x, const float* gate, int64_t pixels, int channels, T* y) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, y += channels) {
    for (int c = 0; c < channels; c += kLanes) {
      store_up_to(y + c, load_up_to(x + c, channels - c) * load_up_to(gate + c, channels - c), channels - c);
    }
  }
}

void run(const SqueezeExciteArgs& a, float* scratch, const Threads& threads) {
  const Memory m = memory(scratch, a, threads.count);
  const int bands = bands_of(a, threads.count);
  const int64_t pixels = a.in.pixels(), stride = round_up(a.in.channels, kLanes);
  const bool alone = a.in.images * pixels * a.in.channels < kWorthSharing;
  Threads crew = threads;
  if (alone) crew.count = 1;
  // Calls body(x, y, image, pixels, sums) for each band. In both passes a band has the same worker, whose
  // cache holds it: the second pass goes backwards, because of a large map only the end is still there.
  const auto for_bands = [&](bool backwards, const auto& body) {
    share_evenly(a.in.images * bands, crew, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t task = backwards ? from + to - 1 - i : i;
        const int64_t image = task / bands, band = task % bands;
        const int64_t begin = pixels * band / bands, end = pixels * (band + 1) / bands;
        with_dtype(a.dtype, [&](const auto* type) {
          using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
          const int64_t at = (image * pixels + begin) * a.in.channels;
          body(static_cast<const T*>(a.x) + at, static_cast<T*>(a.y) + at, image, end - begin,
               m.sums + task * stride);
        });
      }
    });
  };
  for_bands(false, [&](const auto* x, auto*, int64_t, int64_t count, float* sums) {
    add_pixels(x, count, a.in.channels, sums);
  });
  mean_of_bands(m.sums, a.in.images, bands, stride, a.in, m.pooled);
  squeeze_excite_gate.run(gate_of(a, m), m.rest, threads);
  for_bands(true, [&](const auto* x, auto* y, int64_t image, int64_t count, float*) {
    scale_pixels(x, m.gate + image * a.in.channels, count, a.in.channels, y);
  });
}

}  // namespace

constinit const Op<SqueezeExciteArgs> squeeze_excite{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
