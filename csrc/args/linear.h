#pragma once

#include "args/common.h"

namespace effkernels {

struct LinearArgs {
  int64_t images;
  int in_features, out_features;
  Dtype dtype;         // of weight and y
  const float* x;      // (images, in features)
  const void* weight;  // (out features, in features)
  Parameters bias;
  void* y;  // (images, out features)
};

}  // namespace effkernels
