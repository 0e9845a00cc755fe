#pragma once

// A 1x1 convolution and what surrounds it, used by `pointwise_conv_bn_act`, by `linear` for more than 8
// images, and as the last step of `mbconv`.

#include "args/common.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

struct Dense {
  const void* x;  // rows (pixels) of `in_channels` elements, `row_stride` apart
  Dtype x_dtype;
  int64_t row_stride;
  int64_t images, pixels;  // of each image
  int in_channels, out_channels;
  const void* weight;  // (out_channels, in_channels)
  Norm norm;
  const float* gate;  // (images, in_channels), or null
  Activation activation;
  const void* residual;  // shape of y, or null
  void* y;               // (images * pixels, out_channels), or null
  Dtype dtype;           // of weight, residual and y
  float* mean;           // (images, out_channels), or null
};

int64_t dense_scratch(const Dense& dense, int threads);
void run_dense(const Dense& dense, float* scratch, const Threads& threads);

// The narrowest chunk, in floats, of those that need the fewest chunks: each chunk reads the rows again.
int chunk_width(int channels);

}  // namespace effkernels::cpu::EFFKERNELS_ISA
