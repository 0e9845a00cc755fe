#pragma once

// The steps of a network, from the layout in which Python passes them: see
// effkernels/_backends/network_layout.py.

#include <variant>
#include <vector>

#include "args/conv_bn_act.h"
#include "args/linear.h"
#include "args/mbconv.h"
#include "args/pointwise_conv_bn_act.h"
#include "binding/common/arguments.h"

namespace effkernels::binding {

// What describes a network to an op: its tensors in the order of the steps, and numbers.
struct NetworkDescription {
  const std::vector<Tensor>& tensors;
  const Ints& numbers;
  const std::vector<double>& eps;
};

using StepArgs = std::variant<ConvBnActArgs, MbconvArgs, PointwiseConvBnActArgs, LinearArgs>;

// Images, which need not be dense NHWC, nor floats, where the first step is a convolution.
Map network_input(Arguments& arguments, const Tensor& input, const NetworkDescription& network);

// The arguments of the steps for an input of this shape and type. Each step reads the map that the one before
// wrote, and the last one's result is not a map; addresses of maps and results are not set. At least one
// step.
std::vector<StepArgs> network_args(Arguments& arguments, const Map& input, const NetworkDescription& network);

}  // namespace effkernels::binding
