#pragma once

// What the launches of a network read, write and compute at least, counted from the arguments of their
// launchers.

#include <variant>

#include "cuda/depthwise_conv_bn_act.h"
#include "cuda/expand_depthwise_conv_bn_act.h"
#include "cuda/network.h"
#include "cuda/pointwise_conv_bn_act.h"

namespace effkernels::cuda {

inline int64_t bytes_of(const Parameters& vector, int64_t elements) {
  return vector.data == nullptr ? 0 : elements * size_of(vector.dtype);
}

inline int64_t bytes_of(const Norm& norm, int64_t channels) {
  int64_t bytes = 0;
  for (const Parameters* p : {&norm.bias, &norm.gamma, &norm.beta, &norm.mean, &norm.variance}) {
    bytes += bytes_of(*p, channels);
  }
  return bytes;
}

inline int64_t elements_of(const Shape& shape) { return shape.images * shape.pixels() * shape.channels; }

constexpr int64_t kBytesOfFloat = sizeof(float);

// `which` of the `count` launches that a call makes: with two, one leaves to the other what it has made.
inline LaunchWork work_of_launch(const ConvBnActArgs& a, size_t, size_t) {
  const int64_t terms = int64_t{a.in.channels} * a.window.kernel_h * a.window.kernel_w;
  const int64_t x = elements_of(a.in) * (a.bytes ? 1 : size_of(a.dtype));
  const int64_t weights = a.out.channels * terms * size_of(a.dtype);
  return {x + bytes_of(a.image_mean, a.in.channels) + bytes_of(a.image_std, a.in.channels) + weights +
              bytes_of(a.norm, a.out.channels) + elements_of(a.out) * size_of(a.dtype),
          2 * elements_of(a.out) * terms};
}

// A product, and the means of its sums over parts of images.
inline LaunchWork work_of_launch(const PointwiseCall& c, size_t which, size_t count) {
  const PointwiseConvBnActArgs& a = c.args;
  const int64_t each = size_of(a.dtype), pixels = a.in.images * a.in.pixels();
  const int64_t y = pixels * a.out_channels * each;
  const int64_t means = a.mean == nullptr ? 0 : a.in.images * a.out_channels * kBytesOfFloat;
  const int64_t sums = count < 2 ? 0 : pointwise_conv_bn_act_workspace(a) * kBytesOfFloat;
  if (which > 0) return {sums + means, 0};
  int64_t bytes = elements_of(a.in) * each + int64_t{a.out_channels} * a.in.channels * each +
                  bytes_of(a.norm, a.out_channels) + (count < 2 ? means : sums);
  if (a.gate != nullptr) bytes += a.in.images * a.in.channels * kBytesOfFloat;
  if (a.residual != nullptr) bytes += y;
  if (a.y != nullptr) bytes += y;
  return {bytes, 2 * pixels * a.in.channels * a.out_channels};
}

inline LaunchWork work_of_launch(const DepthwiseCall& c, size_t, size_t) {
  const DepthwiseConvBnActArgs& a = c.args;
  const int64_t each = size_of(a.dtype), taps = int64_t{a.window.kernel_h} * a.window.kernel_w;
  const int64_t sums =
      c.sums == nullptr ? 0 : a.out.images * depthwise_conv_bn_act_parts(a) * a.out.channels * kBytesOfFloat;
  return {(elements_of(a.in) + elements_of(a.out) + a.out.channels * taps) * each +
              bytes_of(a.norm, a.out.channels) + sums,
          2 * elements_of(a.out) * taps};
}

inline LaunchWork work_of_launch(const ExpandDepthwiseCall& c, size_t, size_t) {
  const DepthwiseConvBnActArgs& a = c.args.depthwise;
  const int64_t pixels = a.in.images * a.in.pixels(), terms = c.args.in_channels, channels = a.out.channels;
  const int64_t taps = int64_t{a.window.kernel_h} * a.window.kernel_w;
  const int64_t sums = c.sums == nullptr ? 0
                                         : a.out.images * expand_depthwise_conv_bn_act_parts(c.args) *
                                               channels * kBytesOfFloat;
  return {(pixels * terms + channels * (terms + taps) + elements_of(a.out)) * size_of(a.dtype) +
              bytes_of(c.args.expand_norm, channels) + bytes_of(a.norm, channels) + sums,
          2 * (pixels * terms * channels + elements_of(a.out) * taps)};
}

// The means of sums over parts of images, and the gate.
inline LaunchWork work_of_launch(const GateCall& c, size_t which, size_t count) {
  const SqueezeExciteGateArgs& a = c.args;
  const int64_t vector = a.images * a.channels * kBytesOfFloat, sums = vector * c.partial.parts;
  if (which + 1 < count) return {sums + vector, 0};
  const int64_t matrix = int64_t{a.channels} * a.squeezed;
  return {(count < 2 ? sums : vector) + bytes_of(a.reduce_weight, matrix) +
              bytes_of(a.reduce_bias, a.squeezed) + bytes_of(a.expand_weight, matrix) +
              bytes_of(a.expand_bias, a.channels) + vector,
          4 * a.images * matrix};
}

// Features of the weights' type, and the product.
inline LaunchWork work_of_launch(const LinearCall& c, size_t which, size_t count) {
  const LinearArgs& a = c.args;
  const int64_t each = size_of(a.dtype), features = a.images * a.in_features;
  if (which + 1 < count) return {features * (kBytesOfFloat + each), 0};
  return {features * (count < 2 ? kBytesOfFloat : each) + int64_t{a.in_features} * a.out_features * each +
              bytes_of(a.bias, a.out_features) + a.images * a.out_features * each,
          2 * features * a.out_features};
}

inline LaunchWork work_of_launch(const LauncherCall& call, size_t which, size_t count) {
  return std::visit([&](const auto& own) { return work_of_launch(own, which, count); }, call);
}

}  // namespace effkernels::cuda
