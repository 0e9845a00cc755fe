#pragma once

// One row of a depthwise convolution's result, with what follows: what `depthwise` and `mbconv` are made of.

#include "args/common.h"
#include "cpu/isa/vec.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

struct DepthwiseRow {
  Window window;
  const void* const* rows;  // kernel_h input rows, from their first pixel; null where padding is
  int64_t pixel;            // elements from one input pixel to the next
  int width;                // pixels of an input row
  int margin;               // pixels of zeros that lie before and behind it
  int channels;             // of the chunk
  const float* weights;     // [kernel_h * kernel_w][chunk], scaled: see pack_folded
  const float* shift;       // [chunk]
  int chunk;                // `channels` in whole vectors
  Activation activation;
  void* out;
  int64_t out_pixel;
  int out_width;
  float* sums;  // [chunk]: the row's results are added to it; or null
};

using DepthwiseRowKernel = void (*)(const DepthwiseRow& row);

// The kernel for a window and rows of this many results, for elements of `in` read and `out` written.
DepthwiseRowKernel depthwise_row_kernel(const Window& window, int out_width, Dtype in, Dtype out);

// Pixels of zeros around a row with which the kernel need not check where the row ends.
int depthwise_margin(const Window& window, int width, int out_width);

// Pointers to the rows of input under row `out_y` of the result; null where it lies in the padding. `x` is
// row `first` of the input, which has `height` rows.
inline void rows_under(const Window& window, int out_y, int height, const char* x, int first,
                       int64_t row_bytes, const void** rows) {
  for (int i = 0; i < window.kernel_h; ++i) {
    const int y = out_y * window.stride_h - window.top + i * window.dilation_h;
    rows[i] = y < 0 || y >= height ? nullptr : x + (y - first) * row_bytes;
  }
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
