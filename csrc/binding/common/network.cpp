#include "binding/common/network.h"

#include <iterator>

#include "binding/common/conv_bn_act.h"
#include "binding/common/linear.h"
#include "binding/common/mbconv.h"
#include "binding/common/pointwise_conv_bn_act.h"
#include "network_layout.h"  // generated

namespace effkernels::binding {
namespace {

// Reads the steps of a network from their layout, one by one.
class Steps {
 public:
  Steps(const Arguments& arguments, const NetworkDescription& network)
      : arguments_(arguments), tensors_(network.tensors), numbers_(network.numbers), eps_(network.eps) {
    check(numbers_.size() % layout::kStepNumbers == 0 &&
              eps_.size() == numbers_.size() / layout::kStepNumbers * layout::kMostEps,
          "incomplete steps");
  }

  bool next() {
    if (static_cast<size_t>(step_ + 1) * layout::kStepNumbers >= numbers_.size()) return false;
    ++step_;
    // The tensors of this step, each at its index; a bit of the mask says whether it is present.
    for (int i = 0; i < layout::kMostTensors; ++i) {
      own_[i].reset();
      if ((number(layout::kPresent) >> i & 1) == 0) continue;
      check(used_ < tensors_.size(), "too few tensors");
      own_[i] = tensors_[used_++];
    }
    return true;
  }

  int64_t kind() const { return number(layout::kKind); }
  Activation activation() const {
    const int64_t which = number(layout::kActivation);
    check(which >= 0 && which < static_cast<int64_t>(std::size(layout::kActivations)), "unknown activation");
    return layout::kActivations[which];
  }
  Ints stride() const { return {number(layout::kStrideVertical), number(layout::kStrideHorizontal)}; }
  Ints padding() const {
    return {number(layout::kPaddingTop), number(layout::kPaddingBottom), number(layout::kPaddingLeft),
            number(layout::kPaddingRight)};
  }
  Ints dilation() const { return {number(layout::kDilationVertical), number(layout::kDilationHorizontal)}; }
  bool residual() const { return number(layout::kResidual) != 0; }

  const MaybeTensor& maybe(int place) const { return own_[place]; }
  const Tensor& tensor(int place) const {
    check(own_[place].has_value(), "a weight is missing");
    return *own_[place];
  }
  // A bias and its BatchNorm, whose tensors are consecutive from `bias` on; `eps` is the index of its eps.
  NormTensors norm(int bias, int eps) const {
    return {own_[bias],     own_[bias + 1], own_[bias + 2],
            own_[bias + 3], own_[bias + 4], eps_[static_cast<size_t>(step_) * layout::kMostEps + eps]};
  }

 private:
  void check(bool fine, const char* what) const { arguments_.check(fine, what); }
  int64_t number(layout::Number which) const {
    return numbers_[static_cast<size_t>(step_) * layout::kStepNumbers + which];
  }

  const Arguments& arguments_;
  const std::vector<Tensor>& tensors_;
  const Ints& numbers_;
  const std::vector<double>& eps_;
  int64_t step_ = -1;
  size_t used_ = 0;
  MaybeTensor own_[layout::kMostTensors];
};

Shape map_of(const ConvBnActArgs& args) { return args.out; }
Shape map_of(const MbconvArgs& args) { return args.out; }
Shape map_of(const PointwiseConvBnActArgs&) { return {}; }
Shape map_of(const PointwiseMapArgs& args) { return pointwise_out(args); }
Shape map_of(const LinearArgs&) { return {}; }

}  // namespace

Shape map_of(const StepArgs& step) {
  return std::visit([](const auto& args) { return map_of(args); }, step);
}

std::vector<size_t> returned_steps(const NetworkDescription& network) {
  std::vector<size_t> found;
  for (size_t i = 0; (i + 1) * layout::kStepNumbers <= network.numbers.size(); ++i) {
    if (network.numbers[i * layout::kStepNumbers + layout::kReturned] != 0) found.push_back(i);
  }
  return found;
}

void check_results(const Arguments& arguments, const NetworkDescription& network, bool maps) {
  arguments.check(returned_steps(network).empty() != maps,
                  maps ? "no step's map is returned" : "maps are returned by network_maps alone");
}

Map network_input(Arguments& arguments, const Tensor& input, const NetworkDescription& network) {
  // Its weight is the first tensor.
  const bool convolved = !network.numbers.empty() && network.numbers[layout::kKind] == layout::kConvBnAct &&
                         !network.tensors.empty();
  return convolved ? arguments.image(input, network.tensors.front()) : arguments.map(input);
}

std::vector<StepArgs> network_args(Arguments& arguments, const Map& input,
                                   const NetworkDescription& network) {
  Steps s(arguments, network);
  std::vector<StepArgs> prepared;
  Map x = input;
  x.data = nullptr;
  while (s.next()) {
    const bool pooled = !prepared.empty() && std::holds_alternative<PointwiseConvBnActArgs>(prepared.back());
    arguments.check(pooled == (s.kind() == layout::kLinear) &&
                        (prepared.empty() || !std::holds_alternative<LinearArgs>(prepared.back())),
                    "only one linear step may follow the step that pools");
    switch (s.kind()) {
      case layout::kConvBnAct: {
        namespace t = layout::conv_bn_act;
        static_assert(t::kRunningVar == t::kBias + 4);
        prepared.emplace_back(conv_bn_act_args(arguments, x, {s.maybe(t::kMean), s.maybe(t::kStd)},
                                               s.tensor(t::kWeight), s.norm(t::kBias, t::kEps), s.stride(),
                                               s.padding(), s.dilation(), s.activation()));
        x.shape = std::get<ConvBnActArgs>(prepared.back()).out;
        x.planar = x.bytes = false;
        break;
      }
      case layout::kMbconv: {
        namespace t = layout::mbconv;
        static_assert(t::kExpandRunningVar == t::kExpandBias + 4 &&
                      t::kDepthwiseRunningVar == t::kDepthwiseBias + 4 &&
                      t::kProjectRunningVar == t::kProjectBias + 4);
        prepared.emplace_back(mbconv_args(
            arguments, x,
            {s.maybe(t::kExpandWeight), s.norm(t::kExpandBias, t::kExpandEps), s.tensor(t::kDepthwiseWeight),
             s.norm(t::kDepthwiseBias, t::kDepthwiseEps), s.maybe(t::kSeReduceWeight),
             s.maybe(t::kSeReduceBias), s.maybe(t::kSeExpandWeight), s.maybe(t::kSeExpandBias),
             s.tensor(t::kProjectWeight), s.norm(t::kProjectBias, t::kProjectEps)},
            s.stride(), s.padding(), s.residual(), s.activation()));
        x.shape = std::get<MbconvArgs>(prepared.back()).out;
        break;
      }
      case layout::kPointwiseConvBnActPool: {
        namespace t = layout::pointwise_conv_bn_act_pool;
        static_assert(t::kRunningVar == t::kBias + 4);
        prepared.emplace_back(pointwise_conv_bn_act_args(
            arguments, x, s.tensor(t::kWeight), s.norm(t::kBias, t::kEps), std::nullopt, s.activation()));
        break;
      }
      case layout::kPointwiseConvBnAct: {
        namespace t = layout::pointwise_conv_bn_act;
        static_assert(t::kRunningVar == t::kBias + 4);
        PointwiseMapArgs args{pointwise_conv_bn_act_args(
            arguments, x, s.tensor(t::kWeight), s.norm(t::kBias, t::kEps), std::nullopt, s.activation())};
        x.shape = pointwise_out(args);
        prepared.emplace_back(args);
        break;
      }
      default: {
        namespace t = layout::linear;
        arguments.check(s.kind() == layout::kLinear, "unknown step");
        prepared.emplace_back(linear_args(arguments, x.dtype,
                                          std::get<PointwiseConvBnActArgs>(prepared.back()).out_channels,
                                          s.tensor(t::kWeight), s.maybe(t::kBias)));
      }
    }
  }
  // Vectors are made by the last steps alone, so a last map that is returned has only maps before it.
  const std::vector<size_t> returned = returned_steps(network);
  const bool ends_in_map = !prepared.empty() && map_of(prepared.back()).channels > 0;
  arguments.check(
      !prepared.empty() &&
          (returned.empty() ? !ends_in_map : ends_in_map && returned.back() + 1 == prepared.size()),
      "the last map must be pooled, or returned");
  return prepared;
}

}  // namespace effkernels::binding
