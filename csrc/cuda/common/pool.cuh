#pragma once

// Sums over pixels: those of a block here, those of all blocks in pool.cu. Both add in a fixed order.

#include "cuda/common/device.cuh"

namespace effkernels::cuda {

// Means over `pixels` from partial sums [images][parts][channels], added in their order.
const char* mean_of_parts(const float* sums, int64_t images, int parts, int channels, int64_t pixels,
                          float* mean, const Stream& stream);

// Adds up, channel by channel, what groups of threads hold. Each group has `channels` channels, kCount
// neighbouring ones in the `x` of each thread. `memory` has room for groups * channels floats. All threads of
// the block must call this, also those that belong to no group. The first `there` sums go to `sums`.
template <int kCount>
EFFKERNELS_DEVICE void add_groups(const float (&x)[kCount], int group, int groups, int lane, int channels,
                                  int there, float* memory, float* sums) {
  barrier();  // whatever the memory held has been read
  if (group < groups) {
    for (int i = 0; i < kCount; ++i) memory[group * channels + lane * kCount + i] = x[i];
  }
  barrier();
  for (int c = thread_index(); c < there; c += block_threads()) {
    float total = 0.0f;
    for (int g = 0; g < groups; ++g) total += memory[g * channels + c];
    sums[c] = total;
  }
}

}  // namespace effkernels::cuda
