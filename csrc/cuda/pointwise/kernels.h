#pragma once

// The kernels of pointwise_conv_bn_act, of which pointwise_conv_bn_act.cu chooses one for each call. All take
// the pixels of all images as the rows of one matrix: (pixels, in channels) times (in channels, out
// channels).

#include "args/pointwise_conv_bn_act.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda::pointwise {

constexpr int kTerms = 16;            // input channels of one tensor-core product
constexpr int kStep = 64;             // input channels of a chunk of pixels or weights
constexpr int kRowBytes = 2 * kStep;  // of a chunk: one row of shared memory

// tiles.cu: tensor cores, for most calls with elements of 16 bits.
int64_t tiles_workspace(const PointwiseConvBnActArgs& args);
const char* run_tiles(const PointwiseConvBnActArgs& args, float* workspace, const Stream& stream);

// warpgroups.cu: tensor cores of compute capability 9.0, for most calls without means.
bool warpgroups_take(const PointwiseConvBnActArgs& args);
const char* run_warpgroups(const PointwiseConvBnActArgs& args, const Stream& stream);

// warpgroup_means.cu: the same, where means are all that is wanted.
bool warpgroup_means_take(const PointwiseConvBnActArgs& args);
int64_t warpgroup_means_workspace(const PointwiseConvBnActArgs& args);
const char* run_warpgroup_means(const PointwiseConvBnActArgs& args, float* workspace, const Stream& stream);

// few_pixels.cu: tensor cores, for so few pixels that their tiles leave multiprocessors without work.
bool has_few_pixels(const PointwiseConvBnActArgs& args);
const char* run_few_pixels(const PointwiseConvBnActArgs& args, const Stream& stream);

// general.cu: float32, and everything whose rows are not multiples of 16 bytes or not aligned to them.
int64_t general_workspace(const PointwiseConvBnActArgs& args);
const char* run_general(const PointwiseConvBnActArgs& args, float* workspace, const Stream& stream);

}  // namespace effkernels::cuda::pointwise
