// squeeze_excite_gate: two products of a matrix with a vector for each image.

#include "cpu/isa/activation.h"
#include "cpu/isa/dot.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"
#include "cpu/runtime/clock.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Below this many multiply-adds, a single thread finishes before others have woken up.
constexpr int64_t kWorthSharing = 1 << 15;

// hidden[first .. first + count), count <= kLanes, of one image: dot products over the channels.
template <class T>
void reduce(const SqueezeExciteGateArgs& a, const T* weight, const float* pooled, int first, int count,
            float* hidden) {
  float dots[kLanes] = {};
  for (int i = 0; i < count; ++i) {
    dots[i] = dot(weight + static_cast<int64_t>(first + i) * a.channels, pooled, a.channels);
  }
  Vec x[1] = {load(dots)};
  if (a.reduce_bias.data != nullptr) x[0] = x[0] + load_parameters(a.reduce_bias, first, count);
  activate(a.activation, Dtype::kFloat, x);
  store_up_to(hidden + first, x[0], count);
}

// gate[first .. first + count), count <= kLanes, of one image: one vector of channels at a time.
template <class T>
void expand(const SqueezeExciteGateArgs& a, const T* weight, const float* hidden, int first, int count,
            float* gate) {
  Vec x[1] = {broadcast(0.0f)};
  if (a.expand_bias.data != nullptr) x[0] = load_parameters(a.expand_bias, first, count);
  for (int r = 0; r < a.squeezed; r += 4) {
    Vec columns[4];
    load_columns_up_to(weight + static_cast<int64_t>(first) * a.squeezed + r, a.squeezed, count,
                       a.squeezed - r, columns);
    for (int j = 0; j < smaller(4, a.squeezed - r); ++j)
      x[0] = fma(columns[j], broadcast(hidden[r + j]), x[0]);
  }
  sigmoid(x);
  store_up_to(gate + first, x[0], count);
}

int64_t scratch_floats(const SqueezeExciteGateArgs& args, int) { return args.images * args.squeezed; }

void run(const SqueezeExciteGateArgs& a, float* hidden, const Threads& threads) {
  const bool alone = a.images * a.squeezed * a.channels * 2 < kWorthSharing;
  Threads crew = threads;
  if (alone) crew.count = 1;
  const int parts = divide_up(a.squeezed, kLanes);
  share_evenly(a.images * parts, crew, [&](int64_t begin, int64_t end, int worker) {
    const Clock clock(crew, worker);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / parts;
      const int first = static_cast<int>(task % parts) * kLanes;
      with_dtype(a.reduce_weight.dtype, [&](const auto* type) {
        reduce(a, static_cast<decltype(type)>(a.reduce_weight.data), a.pooled + image * a.channels, first,
               smaller(kLanes, a.squeezed - first), hidden + image * a.squeezed);
      });
    }
    clock.lap(Work::kGate);
  });
  const int chunks = divide_up(a.channels, kLanes);
  share_evenly(a.images * chunks, crew, [&](int64_t begin, int64_t end, int worker) {
    const Clock clock(crew, worker);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks;
      const int first = static_cast<int>(task % chunks) * kLanes;
      with_dtype(a.expand_weight.dtype, [&](const auto* type) {
        expand(a, static_cast<decltype(type)>(a.expand_weight.data), hidden + image * a.squeezed, first,
               smaller(kLanes, a.channels - first), a.gate + image * a.channels);
      });
    }
    clock.lap(Work::kGate);
  });
}

}  // namespace

constinit const Op<SqueezeExciteGateArgs> squeeze_excite_gate{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
