#pragma once

// What csrc/cuda/device.cuh has from CUDA, on a CPU: every thread of a block is a fibre, blocks run one after
// the other, and fibres go on in another order after each barrier. Shared memory holds NaN at first and is
// exactly as large as asked for, so that AddressSanitizer sees what goes beyond it. A launch fails where
// threads of a block wait at different barriers, or end while others wait.

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

// The same of the warp; then the value of the lane whose number differs by `mask`.
float exchange(float value, int mask, const void* site);

void start_copy(void* to, const void* from, bool valid);
void finish_copies();

const char* run(const std::function<void()>& kernel, const cuda::Grid& grid);

// Order of fibres and blocks in launches from now on.
void set_seed(uint64_t seed);

uint16_t half_bits(float x);
float half_value(uint16_t bits);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

inline int thread_index() { return host_shim::here().thread; }
inline int block_threads() { return host_shim::here().threads; }
inline int64_t block_index() { return host_shim::here().block; }
inline char* shared_memory() { return host_shim::here().shared; }

// Not inlined: where they return to tells one call in a kernel from another.
[[gnu::noinline]] inline void barrier() { host_shim::wait_for_block(__builtin_return_address(0)); }

[[gnu::noinline]] inline float shuffle_xor(float value, int mask) {
  return host_shim::exchange(value, mask, __builtin_return_address(0));
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

inline float fast_exponential(float x) { return std::exp(x); }
inline float fast_quotient(float x, float y) { return x / y; }

template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, void*, Parameters... parameters) {
  return host_shim::run([&] { kernel(parameters...); }, grid);
}

}  // namespace effkernels::cuda
