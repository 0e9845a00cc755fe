#pragma once

// Computes one row of a depthwise convolution with BatchNorm and activation; used by `depthwise_conv_bn_act`
// and `mbconv`.

#include "args/common.h"
#include "cpu/isa/vec.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu {

struct DepthwiseRow {
  Window window;
  const void* const* rows;  // kernel_h input rows, from their first pixel; null for padding
  int64_t pixel;            // elements between neighbouring input pixels
  int width;                // pixels of an input row
  int margin;               // pixels of zeros before and after the row
  int channels;             // channels of the chunk
  const float* weights;     // [kernel_h * kernel_w][chunk], scaled: see pack_folded
  const float* shift;       // [chunk]
  int chunk;                // `channels` rounded up to whole vectors
  Activation activation;
  Dtype dtype;  // to which results are rounded, here or later
  void* out;
  int64_t out_pixel;
  int out_width;
  float* sums;  // [chunk]: the row's results are added to them; or null
};

using DepthwiseRowKernel = void (*)(const DepthwiseRow& row);

}  // namespace effkernels::cpu

// Instruction sets that have more than AVX-512 only for products use its kernels, which take a minute to
// compile.
#if defined(__AVX512BF16__)
#define EFFKERNELS_DEPTHWISE_ISA avx512
#else
#define EFFKERNELS_DEPTHWISE_ISA EFFKERNELS_ISA
#endif

namespace effkernels::cpu::EFFKERNELS_DEPTHWISE_ISA {

// The kernel for a window and for rows with this many results, reading elements of `in` and writing elements
// of `out`.
DepthwiseRowKernel depthwise_row_kernel(const Window& window, int out_width, Dtype in, Dtype out);

// The pixels of zeros around a row that spare the kernel from checking where the row ends.
int depthwise_margin(const Window& window, int width, int out_width);

}  // namespace effkernels::cpu::EFFKERNELS_DEPTHWISE_ISA

namespace effkernels::cpu::EFFKERNELS_ISA {

using EFFKERNELS_DEPTHWISE_ISA::depthwise_margin;
using EFFKERNELS_DEPTHWISE_ISA::depthwise_row_kernel;

// Pointers to the input rows under row `out_y` of the result; null for padding. `x` points to row `first` of
// the input, which has `height` rows.
inline void rows_under(const Window& window, int out_y, int height, const char* x, int first,
                       int64_t row_bytes, const void** rows) {
  for (int i = 0; i < window.kernel_h; ++i) {
    const int y = out_y * window.stride_h - window.top + i * window.dilation_h;
    rows[i] = y < 0 || y >= height ? nullptr : x + (y - first) * row_bytes;
  }
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
