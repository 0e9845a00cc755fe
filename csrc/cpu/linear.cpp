// linear: the classifier after pooling. Its weights are read once, from distant memory, and used for only
// as many rows as there are images.

#include "cpu/isa/dense.h"
#include "cpu/isa/dot.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"
#include "cpu/runtime/clock.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

// Up to this many images, dot products with the unpacked weights are faster than packing them.
constexpr int64_t kFewImages = 8;

// kLanes outputs from `first`, for every image.
template <class T>
void run_outputs(const LinearArgs& a, const T* weight, int first) {
  const int count = smaller(kLanes, a.out_features - first);
  const int k = a.in_features;
  float results[kFewImages][kLanes] = {};
  for (int o = 0; o < count; ++o) {
    const T* row = weight + static_cast<int64_t>(first + o) * k;
    // Prefetches two rows ahead: further than the processor's own prefetcher, and across pages.
    prefetch(row + 2 * static_cast<int64_t>(k), k);
    for (int64_t i = 0; i < a.images; ++i) results[i][o] = dot(row, a.x + i * k, k);
  }
  Vec bias = broadcast(0.0f);
  if (a.bias.data != nullptr) bias = load_parameters(a.bias, first, count);
  for (int64_t i = 0; i < a.images; ++i) {
    store_up_to(static_cast<T*>(a.y) + i * a.out_features + first, load(results[i]) + bias, count);
  }
}

Dense product(const LinearArgs& a) {
  Dense d{};
  d.x = a.x;
  d.x_dtype = Dtype::kFloat;
  d.row_stride = d.in_channels = a.in_features;
  d.images = a.images;
  d.pixels = 1;
  d.out_channels = a.out_features;
  d.weight = a.weight;
  d.norm.bias = a.bias;
  d.activation = Activation::kIdentity;
  d.y = a.y;
  d.dtype = a.dtype;
  return d;
}

int64_t scratch_floats(const LinearArgs& a, int threads) {
  return a.images <= kFewImages ? 0 : dense_scratch(product(a), threads);
}

void run(const LinearArgs& a, float* scratch, const Threads& threads) {
  if (a.images > kFewImages) return run_dense(product(a), scratch, threads);
  share_evenly(divide_up(a.out_features, kLanes), threads, [&](int64_t begin, int64_t end, int worker) {
    const Clock clock(threads, worker);
    with_dtype(a.dtype, [&](const auto* type) {
      for (int64_t i = begin; i < end; ++i) {
        run_outputs(a, static_cast<decltype(type)>(a.weight), static_cast<int>(i) * kLanes);
      }
    });
    clock.lap(Work::kProduct);
  });
}

}  // namespace

constinit const Op<LinearArgs> linear{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
