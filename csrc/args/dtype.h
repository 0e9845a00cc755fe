#pragma once

// The element types of activations and weights. Arithmetic is float everywhere.

#include <cstdint>
#include <cstring>

namespace effkernels::cpu {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

enum class Dtype : uint8_t { kFloat, kBFloat16, kHalf };

constexpr int size_of(Dtype dtype) { return dtype == Dtype::kFloat ? 4 : 2; }

}  // namespace effkernels::cpu
