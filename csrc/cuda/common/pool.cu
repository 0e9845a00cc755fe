// Means from the partial sums of blocks.

#include "cuda/common/pool.cuh"

#include "cuda/common/elements.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 128;

EFFKERNELS_KERNEL(kThreads, 8)
mean_of_parts_kernel(const float* sums, int64_t images, int parts, int channels, float pixels, float* mean) {
  let_next_launch_begin();
  wait_for_previous_launch();
  const int64_t i = block_index() * kThreads + thread_index();
  if (i >= images * channels) return;
  const int64_t image = i / channels;
  const float* part = sums + image * parts * channels + (i - image * channels);
  float total = 0.0f;
#pragma unroll 8
  for (int p = 0; p < parts; ++p) total += part[static_cast<int64_t>(p) * channels];
  mean[i] = total / pixels;
}

}  // namespace

const char* mean_of_parts(const float* sums, int64_t images, int parts, int channels, int64_t pixels,
                          float* mean, const Stream& stream) {
  const Grid grid{"mean_of_parts", divide_up<int64_t>(images * channels, kThreads), kThreads, 0};
  return launch(mean_of_parts_kernel, grid, stream, sums, images, parts, channels, static_cast<float>(pixels),
                mean);
}

}  // namespace effkernels::cuda
