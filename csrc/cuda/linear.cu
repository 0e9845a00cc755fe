// linear: the classifier of a network, as a 1x1 convolution of images of one pixel.

#include "cuda/linear.h"

#include "cuda/common/elements.cuh"
#include "cuda/pointwise_conv_bn_act.h"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 128, kTogether = 4;  // neighbouring features of a thread

template <class T>
EFFKERNELS_KERNEL(kThreads, 8)
narrow_features_kernel(const float* x, int64_t count, bool together, T* y) {
  let_next_launch_begin();
  wait_for_previous_launch();
  const int64_t i = (block_index() * kThreads + thread_index()) * kTogether;
  if (i >= count) return;
  float features[kTogether];
  load(x + i, together, count - i, features);
  store(y + i, together, count - i, features);
}

template <class T>
const char* narrow_features(const LinearArgs& a, void* to, const Stream& stream) {
  const int64_t count = a.images * a.in_features;
  const bool together = count % kTogether == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0 &&
                        reinterpret_cast<uintptr_t>(to) % 8 == 0;
  const Grid grid{"narrow_features", divide_up<int64_t>(count, kThreads * kTogether), kThreads, 0};
  return launch(narrow_features_kernel<T>, grid, stream, a.x, count, together, static_cast<T*>(to));
}

}  // namespace

int64_t linear_workspace(const LinearArgs& a) {
  return a.dtype == Dtype::kFloat ? 0 : a.images * a.in_features * size_of(a.dtype);
}

const char* linear(const LinearArgs& a, void* workspace, const Stream& stream) {
  if (a.images == 0) return nullptr;
  PointwiseConvBnActArgs product{};
  product.in = {a.images, 1, 1, a.in_features};
  product.out_channels = a.out_features;
  product.dtype = a.dtype;
  product.x = a.x;
  product.weight = a.weight;
  product.norm.bias = a.bias;
  product.activation = Activation::kIdentity;
  product.y = a.y;
  if (a.dtype != Dtype::kFloat) {
    product.x = workspace;
    const char* error = a.dtype == Dtype::kHalf ? narrow_features<Half>(a, workspace, stream)
                                                : narrow_features<BFloat16>(a, workspace, stream);
    if (error != nullptr) return error;
  }
  return pointwise_conv_bn_act(product, nullptr, stream);
}

}  // namespace effkernels::cuda
