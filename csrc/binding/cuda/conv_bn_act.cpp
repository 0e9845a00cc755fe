// effkernels_cuda: conv_bn_act

#include "binding/common/conv_bn_act.h"

#include "binding/cuda/call.h"
#include "cuda/conv_bn_act.h"

namespace effkernels::binding {

static Tensor conv_bn_act(const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                          const MaybeTensor& gamma, const MaybeTensor& beta, const MaybeTensor& mean,
                          const MaybeTensor& variance, double eps, const Ints& stride, const Ints& padding,
                          const Ints& dilation, const std::string& activation, const MaybeTensor& image_mean,
                          const MaybeTensor& image_std) {
  Call call("conv_bn_act", x, weight, bias, gamma, beta, mean, variance, image_mean, image_std);
  Arguments& arguments = call.arguments;
  ConvBnActArgs args = conv_bn_act_args(arguments, arguments.image(x, weight), {image_mean, image_std},
                                        weight, {bias, gamma, beta, mean, variance, eps}, stride, padding,
                                        dilation, arguments.activation(activation));
  Tensor y = empty_map(weight, args.out);
  args.y = y.mutable_data_ptr();
  call.launch(cuda::conv_bn_act, args);
  return y;
}

}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("conv_bn_act", TORCH_BOX(&effkernels::binding::conv_bn_act));
}
