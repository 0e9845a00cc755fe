// pointwise_conv_bn_act: a 1x1 convolution; see dense.cpp.

#include "cpu/isa/dense.h"
#include "cpu/isa/ops.h"

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

Dense dense(const PointwiseConvBnActArgs& a) {
  return {.x = a.x,
          .x_dtype = a.dtype,
          .row_stride = a.in.channels,
          .images = a.in.images,
          .pixels = a.in.pixels(),
          .in_channels = a.in.channels,
          .out_channels = a.out_channels,
          .weight = a.weight,
          .norm = a.norm,
          .gate = a.gate,
          .activation = a.activation,
          .residual = a.residual,
          .y = a.y,
          .dtype = a.dtype,
          .mean = a.mean};
}

int64_t scratch_floats(const PointwiseConvBnActArgs& args, int threads) {
  return dense_scratch(dense(args), threads);
}

void run(const PointwiseConvBnActArgs& args, float* scratch, const Threads& threads) {
  run_dense(dense(args), scratch, threads);
}

}  // namespace

constinit const Op<PointwiseConvBnActArgs> pointwise_conv_bn_act{scratch_floats, run};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
