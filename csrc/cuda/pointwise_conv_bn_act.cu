// pointwise_conv_bn_act(_pool, _squeeze): the choice of a kernel.

#include "cuda/pointwise_conv_bn_act.h"

#include "cuda/common/elements.cuh"
#include "cuda/pointwise/kernels.h"

namespace effkernels::cuda {
namespace {

// Whether the tensor cores' kernels take it: they read and write 8 elements at a time, and count images and
// tiles in 31 bits.
bool in_vectors(const PointwiseConvBnActArgs& a) {
  if (a.dtype == Dtype::kFloat || a.in.images > INT32_MAX) return false;
  const auto eights = [](const void* p, int channels) {
    return aligned<BFloat16, kVector<BFloat16>>(p, channels);
  };
  return eights(a.x, a.in.channels) && eights(a.weight, a.in.channels) && eights(a.gate, a.in.channels) &&
         eights(a.y, a.out_channels) && eights(a.residual, a.out_channels);
}

}  // namespace

int64_t pointwise_conv_bn_act_workspace(const PointwiseConvBnActArgs& a) {
  if (a.mean == nullptr || a.in.images == 0) return 0;
  if (!in_vectors(a)) return pointwise::general_workspace(a);
  return pointwise::warpgroup_means_take(a) ? pointwise::warpgroup_means_workspace(a)
                                            : pointwise::tiles_workspace(a);
}

const char* pointwise_conv_bn_act(const PointwiseConvBnActArgs& a, float* workspace, const Stream& stream) {
  if (a.in.images == 0) return nullptr;
  if (!in_vectors(a)) return pointwise::run_general(a, workspace, stream);
  if (pointwise::has_few_pixels(a)) return pointwise::run_few_pixels(a, stream);
  if (pointwise::warpgroups_take(a)) return pointwise::run_warpgroups(a, stream);
  if (pointwise::warpgroup_means_take(a)) return pointwise::run_warpgroup_means(a, workspace, stream);
  return pointwise::run_tiles(a, workspace, stream);
}

}  // namespace effkernels::cuda
