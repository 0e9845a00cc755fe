#pragma once

// Several neighbouring elements at a time, and arithmetic on sizes.

#include "cuda/common/device.cuh"

namespace effkernels::cuda {

// Alignment in bytes; at most 16, which one access reads.
template <class T, int kCount>
constexpr int kAlignment = sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16;

template <class T, int kCount>
struct alignas(kAlignment<T, kCount>) Elements {
  T at[kCount];
};

// The number of elements in 16 bytes.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// Loads `kCount` elements: in one access where `together`, which needs alignment; else the first `there` of
// them one by one, and zeros for the others.
template <int kCount, class T>
EFFKERNELS_DEVICE void load(const T* p, bool together, int64_t there, float (&x)[kCount]) {
  Elements<T, kCount> elements{};
  if (together) {
    elements = *reinterpret_cast<const Elements<T, kCount>*>(p);
  } else {
    for (int i = 0; i < kCount; ++i) {
      if (i < there) elements.at[i] = p[i];
    }
  }
  for (int i = 0; i < kCount; ++i) x[i] = widen(elements.at[i]);
}

template <int kCount, class T>
EFFKERNELS_DEVICE void store(T* p, bool together, int64_t there, const float (&x)[kCount]) {
  Elements<T, kCount> elements;
  for (int i = 0; i < kCount; ++i) narrow(x[i], elements.at[i]);
  if (together) {
    *reinterpret_cast<Elements<T, kCount>*>(p) = elements;
  } else {
    for (int i = 0; i < kCount; ++i) {
      if (i < there) p[i] = elements.at[i];
    }
  }
}

// The elements of a word with two of 16 bits.
template <class T>
EFFKERNELS_DEVICE float low_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair)});
}
template <class T>
EFFKERNELS_DEVICE float high_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair >> 16)});
}

template <class Int>
EFFKERNELS_HOST_DEVICE Int divide_up(Int a, Int b) {
  return (a + b - 1) / b;
}

template <class Int>
EFFKERNELS_HOST_DEVICE Int round_up(Int a, Int b) {
  return divide_up(a, b) * b;
}

template <class Int>
EFFKERNELS_HOST_DEVICE Int smaller(Int a, Int b) {
  return b < a ? b : a;
}

template <class Int>
EFFKERNELS_HOST_DEVICE Int larger(Int a, Int b) {
  return a < b ? b : a;
}

// Whether rows of `channels` elements from `p` on can be read or written `kCount` at a time.
template <class T, int kCount>
bool aligned(const void* p, int channels) {
  return channels % kCount == 0 && reinterpret_cast<uintptr_t>(p) % kAlignment<T, kCount> == 0;
}

}  // namespace effkernels::cuda
