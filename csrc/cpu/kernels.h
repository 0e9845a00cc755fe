#pragma once

// The kernels of one instruction set, by op. A new op adds a line to the list, its arguments to the
// includes, and a file of its own in this folder.

#include <cstdint>

#include "args/conv_bn_act.h"
#include "args/depthwise_conv_bn_act.h"
#include "args/depthwise_conv_wgrad.h"
#include "args/linear.h"
#include "args/mbconv.h"
#include "args/pointwise_conv_bn_act.h"
#include "args/squeeze_excite.h"
#include "args/squeeze_excite_gate.h"
#include "cpu/runtime/threads.h"

#define EFFKERNELS_FOR_EACH_OP(f)                                                                    \
  f(depthwise_conv_bn_act, DepthwiseConvBnActArgs) f(conv_bn_act, ConvBnActArgs)                     \
      f(pointwise_conv_bn_act, PointwiseConvBnActArgs) f(squeeze_excite_gate, SqueezeExciteGateArgs) \
          f(squeeze_excite, SqueezeExciteArgs) f(mbconv, MbconvArgs) f(linear, LinearArgs)           \
              f(depthwise_conv_wgrad, DepthwiseConvWgradArgs)

namespace effkernels::cpu {

// One op of one instruction set. `scratch_floats` is the workspace that `run` needs, in floats.
template <class Args>
struct Op {
  int64_t (*scratch_floats)(const Args& args, int threads);
  void (*run)(const Args& args, float* scratch, const Threads& threads);
};

struct Kernels {
  const char* name;  // of the instruction set
#define EFFKERNELS_MEMBER(op, Args) const Op<Args>* op;
  EFFKERNELS_FOR_EACH_OP(EFFKERNELS_MEMBER)
#undef EFFKERNELS_MEMBER
  void (*exponential)(const float* x, float* y, int64_t count);  // for tests
  // Computes the fastest multiply-adds that products of this type may use, `rounds` times as many as keep the
  // processor busy; returns their number. Profiles time it to bound products.
  int64_t (*multiply_adds)(Dtype dtype, int64_t rounds);
};

}  // namespace effkernels::cpu
