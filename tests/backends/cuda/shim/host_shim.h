#pragma once

// What csrc/cuda/device.cuh has from CUDA, on a CPU: every thread of a block is a fibre, blocks run one after
// the other, and fibres go on in another order after each barrier. Shared memory holds NaN at first and is
// exactly as large as asked for, so that AddressSanitizer sees what goes beyond it. A launch fails where
// threads of a block wait at different barriers, or end while others wait.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

#define EFFKERNELS_DEVICE inline
#define EFFKERNELS_HOST_DEVICE constexpr
#define EFFKERNELS_KERNEL(threads, blocks) void

namespace effkernels::host_shim {

struct Place {
  int thread, threads;
  int64_t block;
  char* shared;
};

// Of the fibre that runs.
const Place& here();

// Stops the fibre until all of the block have come to the same `site`.
void wait_for_block(const void* site);

// What a lane shows to the others of its warp.
using Words = std::array<uint32_t, 8>;

// Stops the fibre until all of the warp have come to the same `site`; then what each of its lanes shows.
const Words* meet(const Words& shown, const void* site);

// The products of PTX's mma.m16n8k16, from what each lane has: four words of a, two of b. `value` widens an
// element.
void add_products(const Words* lanes, float (*value)(uint16_t), float (&sums)[4]);

void start_copy(void* to, const void* from, bool valid);
void finish_copies();

const char* run(const std::function<void()>& kernel, const cuda::Grid& grid);

// Order of fibres and blocks in launches from now on.
void set_seed(uint64_t seed);

uint16_t half_bits(float x);
float half_value(uint16_t bits);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

// A small GPU, so that small cases too are more than it runs at once.
constexpr int64_t kBlocksToFill = 4;

inline int thread_index() { return host_shim::here().thread; }
inline int block_threads() { return host_shim::here().threads; }
inline int64_t block_index() { return host_shim::here().block; }
inline char* shared_memory() { return host_shim::here().shared; }

// Not inlined: where they return to tells one call in a kernel from another.
[[gnu::noinline]] inline void barrier() { host_shim::wait_for_block(__builtin_return_address(0)); }

[[gnu::noinline]] inline float shuffle_xor(float value, int mask) {
  const host_shim::Words* lanes =
      host_shim::meet({std::bit_cast<uint32_t>(value)}, __builtin_return_address(0));
  return std::bit_cast<float>(lanes[thread_index() % kWarp ^ mask][0]);
}

[[gnu::noinline]] inline void load_matrices(const void* row, uint32_t (&elements)[4]) {
  const auto address = reinterpret_cast<uintptr_t>(row);
  const host_shim::Words* lanes =
      host_shim::meet({static_cast<uint32_t>(address), static_cast<uint32_t>(uint64_t{address} >> 32)},
                      __builtin_return_address(0));
  struct alignas(16) Row {
    uint32_t words[4];
  };
  const int lane = thread_index() % kWarp;
  for (int i = 0; i < 4; ++i) {
    const host_shim::Words& named = lanes[8 * i + lane / 4];
    const auto from = static_cast<uintptr_t>(uint64_t{named[1]} << 32 | named[0]);
    elements[i] = reinterpret_cast<const Row*>(from)->words[lane % 4];
  }
}

inline void copy_16_bytes(void* to, const void* from, bool valid) { host_shim::start_copy(to, from, valid); }
inline void wait_for_copies() { host_shim::finish_copies(); }

inline float widen(float x) { return x; }
inline float widen(uint8_t x) { return static_cast<float>(x); }
inline float widen(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(Half x) { return host_shim::half_value(x.bits); }

inline void narrow(float x, float& to) { to = x; }
inline void narrow(float x, BFloat16& to) {
  const auto bits = std::bit_cast<uint32_t>(x);
  to.bits = static_cast<uint16_t>(x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff);
}
inline void narrow(float x, Half& to) { to.bits = host_shim::half_bits(x); }

template <class T>
[[gnu::noinline]] void multiply_add(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sums)[4]) {
  const host_shim::Words* lanes =
      host_shim::meet({a[0], a[1], a[2], a[3], b0, b1}, __builtin_return_address(0));
  host_shim::add_products(lanes, [](uint16_t bits) { return widen(T{bits}); }, sums);
}

// What is subnormal counts as 0.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float fast_power_of_2(float x) { return flushed(std::exp2(flushed(x))); }
inline float fast_reciprocal(float x) { return flushed(1.0f / flushed(x)); }

inline float multiply_add_within_1(float a, float b, float c) {
  const float sum = std::fma(a, b, c);
  return sum > 1.0f ? 1.0f : sum > 0.0f ? sum : 0.0f;
}

template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, void*, Parameters... parameters) {
  return host_shim::run([&] { kernel(parameters...); }, grid);
}

}  // namespace effkernels::cuda
