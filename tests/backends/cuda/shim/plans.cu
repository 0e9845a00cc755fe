// How depthwise_tensor_core.cu would cut a call on a device, for the tests.

#include "cuda/common/depthwise_rows.cuh"
#include "cuda/depthwise_tensor_core.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// `shape` is images, channels, height and width of the input, kernel, stride, padding above and below (as on
// the left and on the right). Writes parts, groups, abreast, rows, stages, shares, unit, the table's stages,
// blocks and bytes of shared memory of a block. A GPU's table has 256 stages.
EXPORT void effkernels_depthwise_plan(const int64_t* shape, int multiprocessors, int64_t block_bytes,
                                      int64_t multiprocessor_bytes, int64_t* plan) {
  using namespace effkernels;
  DepthwiseConvBnActArgs a{};
  const auto side = [&](int i) { return static_cast<int>(shape[i]); };
  a.in = {shape[0], side(2), side(3), side(1)};
  const int kernel = side(4), stride = side(5), around = side(6) + side(7);
  const auto windowed = [&](int length) { return (length + around - kernel) / stride + 1; };
  a.out = {shape[0], windowed(side(2)), windowed(side(3)), side(1)};
  a.dtype = Dtype::kHalf;
  a.window = {kernel, kernel, stride, stride, side(6), side(6), 1, 1};
  const cuda::depthwise_rows::Plan p =
      cuda::depthwise_rows::make_plan(a, {multiprocessors, block_bytes, multiprocessor_bytes}, 256);
  const int64_t found[] = {p.parts,       p.groups, p.abreast,
                           p.rows,        p.stages, p.shares,
                           p.unit,        p.table,  int64_t{p.shares} * p.strips * p.chunks,
                           p.shared_bytes};
  for (const int64_t value : found) *plan++ = value;
}

// Whether kernels with tensor memory are there from now on.
EXPORT void effkernels_set_tensor_memory(bool there) { effkernels::host_shim::tensor_memory_there = there; }
