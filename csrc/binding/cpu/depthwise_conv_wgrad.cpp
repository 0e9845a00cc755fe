// effkernels_cpu: depthwise_conv_wgrad

#include "args/depthwise_conv_wgrad.h"

#include "binding/common/arguments.h"
#include "binding/cpu/run.h"

namespace effkernels::binding {
namespace {

Tensor depthwise_conv_wgrad(const Tensor& x, const Tensor& grad, const Tensor& weight, const Ints& stride,
                            const Ints& padding, const Ints& dilation) {
  Arguments arguments("depthwise_conv_wgrad");
  const Map in = arguments.map(x), out = arguments.map(grad);
  arguments.check(in.dtype == Dtype::kFloat && out.dtype == Dtype::kFloat, "x and grad must be float32");
  DepthwiseConvWgradArgs args{};
  args.in = in.shape;
  args.window = arguments.window(weight, stride, padding, dilation);
  args.out = arguments.windowed(args.in, args.in.channels, args.window, padding);
  const Shape &want = args.out, &got = out.shape;
  arguments.check(want.images == got.images && want.height == got.height && want.width == got.width &&
                      want.channels == got.channels,
                  "grad must have the shape of the result");
  args.x = static_cast<const float*>(in.data);
  args.grad = static_cast<const float*>(out.data);
  const int64_t taps = int64_t{args.window.kernel_h} * args.window.kernel_w;
  Tensor found = empty_floats(x, args.in.channels, taps);
  args.weight = floats_of(found);
  run(*cpu::kernels().depthwise_conv_wgrad, args);
  return found;
}

}  // namespace
}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cpu, CPU, library) {
  library.impl("depthwise_conv_wgrad", TORCH_BOX(&effkernels::binding::depthwise_conv_wgrad));
}
