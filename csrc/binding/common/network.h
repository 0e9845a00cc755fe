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

// `PointwiseConvBnActArgs` makes means alone.
using StepArgs =
    std::variant<ConvBnActArgs, MbconvArgs, PointwiseConvBnActArgs, PointwiseMapArgs, LinearArgs>;

// Images, which need not be dense NHWC, nor floats, where the first step is a convolution.
Map network_input(Arguments& arguments, const Tensor& input, const NetworkDescription& network);

// The arguments of the steps for an input of this shape and type. Each step reads the map that the one before
// wrote. The last one's result is a map if it is returned, and else vectors; addresses of maps and results
// are not set. At least one step.
std::vector<StepArgs> network_args(Arguments& arguments, const Map& input, const NetworkDescription& network);

// The numbers of the steps whose maps are the network's results; none where the last step's vectors are.
std::vector<size_t> returned_steps(const NetworkDescription& network);

// Refuses a network whose results are not what the op returns: `maps`, or else vectors.
void check_results(const Arguments& arguments, const NetworkDescription& network, bool maps);

// The map that a step writes; of no channels where it writes none.
Shape map_of(const StepArgs& step);

// The ops of a backend are two functions in four forms. `kRun` takes the input, the description of a network
// or the number of one that is held, and whether it returns maps.
template <auto kRun>
Tensor network(const Tensor& input, const std::vector<Tensor>& tensors, const Ints& numbers,
               const std::vector<double>& eps) {
  return kRun(input, {tensors, numbers, eps}, false).front();
}

template <auto kRun>
std::vector<Tensor> network_maps(const Tensor& input, const std::vector<Tensor>& tensors, const Ints& numbers,
                                 const std::vector<double>& eps) {
  return kRun(input, {tensors, numbers, eps}, true);
}

template <auto kRun>
Tensor network_held(const Tensor& input, int64_t number) {
  return kRun(input, number, false).front();
}

template <auto kRun>
std::vector<Tensor> network_maps_held(const Tensor& input, int64_t number) {
  return kRun(input, number, true);
}

inline const char* network_name(bool maps) { return maps ? "network_maps" : "network"; }

}  // namespace effkernels::binding
