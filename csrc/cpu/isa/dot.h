#pragma once

// The dot product of two vectors, for products of a matrix with so few vectors that packing the matrix does
// not pay.

#include "cpu/isa/vec.h"
#include "cpu/runtime/parallel.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

// Several sums at once, because each addition waits for the previous one of the same sum. Over thousands of
// terms they also round less.
template <class T>
EFFKERNELS_INLINE float dot(const T* a, const float* b, int count) {
  constexpr int kSums = 4;
  Vec sums[kSums];
  for (int s = 0; s < kSums; ++s) sums[s] = broadcast(0.0f);
  int i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
    for (int s = 0; s < kSums; ++s) {
      sums[s] = fma(load(a + i + s * kLanes), load(b + i + s * kLanes), sums[s]);
    }
  }
  for (; i < count; i += kLanes) {
    sums[0] = fma(load_up_to(a + i, count - i), load_up_to(b + i, count - i), sums[0]);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace effkernels::cpu::EFFKERNELS_ISA
