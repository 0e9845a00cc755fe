#pragma once

// What csrc/cuda/device.cuh has from CUDA, on a CPU: every thread of a block is a fibre, blocks run one after
// the other but for those of a cluster, and fibres go on in another order after each barrier. Shared memory
// holds NaN at first and is exactly as large as asked for, so that AddressSanitizer sees what goes beyond it.
// A launch fails where threads of a block wait at different barriers, or end while others wait, or wait for
// what nothing brings about.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <source_location>

#define EFFKERNELS_DEVICE inline
#define EFFKERNELS_HOST_DEVICE constexpr
#define EFFKERNELS_KERNEL(threads, blocks) void

namespace effkernels::host_shim {

struct Place {
  int thread, threads;
  int64_t block;
  char* shared;
  int rank;  // of the block in its cluster
};

// Of the fibre that runs.
const Place& here();

// Where in a kernel a thread waits. Not where in machine code: the compiler may have made two of one place.
using Where = std::source_location;

// Stops the fibre until all of the block have come to the same place.
void wait_for_block(const Where& where);

// What a lane shows to the others of its warp.
using Words = std::array<uint32_t, 8>;

// Stops the fibre until all of the warp have come to the same place; then what each of its lanes shows.
const Words* meet(const Words& shown, const Where& where);

// The products of PTX's mma.m16n8k16, from what each lane has: four words of a, two of b. Those of
// mma.m16n8k8, with 8 terms, are of the first two and the fifth. `value` widens an element.
void add_products(const Words* lanes, int terms, float (*value)(uint16_t), float (&sums)[4]);

void start_copy(void* to, const void* from, bool valid);
void end_copy_group();
// All copies but those of the newest groups, and of no group yet.
void finish_copies_but(int newest_groups);
void finish_copies();

const char* run(const std::function<void()>& kernel, const cuda::Grid& grid, const cuda::Stream& stream);

// Of dependent.cpp.
void wait_for_previous_launch(const Where& where);
void let_next_launch_begin();

// Order of fibres and blocks in launches from now on.
void set_seed(uint64_t seed);

// The device from now on; a small one where null.
void set_device(const cuda::DeviceLimits* limits);

// The address where a block's shared memory begins: as on a GPU, aligned to 16 bytes and to no more.
constexpr uint32_t kSharedBase = 1024 + 16;

uint16_t half_bits(float x);
float half_value(uint16_t bits);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

inline int thread_index() { return host_shim::here().thread; }
inline int block_threads() { return host_shim::here().threads; }
inline int64_t block_index() { return host_shim::here().block; }
inline char* shared_memory() { return host_shim::here().shared; }

inline void barrier(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_block(where);
}

inline void wait_for_previous_launch(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_previous_launch(where);
}
inline void let_next_launch_begin() { host_shim::let_next_launch_begin(); }

// All memory that the launches of a sequence write, from now on: no launch may touch it but for what
// `allow_memory` says before. A dependent launch may not either until it has waited, in each block anew: so
// what it reads too early is found. Nothing is watched where there are no ranges.
constexpr bool kWatchesMemory = true;
void watch_memory(const MemoryRange* ranges, int count);
void allow_memory(const MemoryRange* ranges, int count);

inline bool driver_captures_dependent_launches() { return true; }

inline void warp_barrier(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::meet({}, where);
}

inline int uniform(int value, const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes = host_shim::meet({static_cast<uint32_t>(value)}, where);
  return static_cast<int>(lanes[0][0]);
}

inline float shuffle_xor(float value, int mask, const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes = host_shim::meet({std::bit_cast<uint32_t>(value)}, where);
  return std::bit_cast<float>(lanes[thread_index() % kWarp ^ mask][0]);
}

inline uint32_t shared_address(const void* p) {
  return host_shim::kSharedBase + static_cast<uint32_t>(static_cast<const char*>(p) - shared_memory());
}

inline void* shared_at(uint32_t address) { return shared_memory() + (address - host_shim::kSharedBase); }

// A row of a matrix of 16-bit elements.
struct alignas(16) MatrixRow {
  uint32_t words[4];
};

inline MatrixRow* matrix_row(const host_shim::Words& named) {
  return reinterpret_cast<MatrixRow*>(shared_memory() + (named[0] - host_shim::kSharedBase));
}

template <int kMatrices>
void load_matrices(uint32_t row, uint32_t (&elements)[kMatrices],
                   const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes = host_shim::meet({row}, where);
  const int lane = thread_index() % kWarp;
  for (int i = 0; i < kMatrices; ++i) elements[i] = matrix_row(lanes[8 * i + lane / 4])->words[lane % 4];
}

inline void load_matrices(const void* row, uint32_t (&elements)[4],
                          const host_shim::Where& where = host_shim::Where::current()) {
  load_matrices(shared_address(row), elements, where);
}

inline void copy_16_bytes(void* to, const void* from, bool valid) { host_shim::start_copy(to, from, valid); }
inline void wait_for_copies() { host_shim::finish_copies(); }
inline void end_copy_group() { host_shim::end_copy_group(); }
inline void wait_for_copy_groups(int newest) {
  host_shim::finish_copies_but(newest < kMostOpenGroups ? newest : kMostOpenGroups);
}

inline float float_of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

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
uint32_t narrow_pair(float first, float second) {
  T low, high;
  narrow(first, low);
  narrow(second, high);
  return low.bits | uint32_t{high.bits} << 16;
}

template <int kCount>
void store_where(bool there, void* to, const uint32_t (&words)[kCount]) {
  struct alignas(4 * kCount) Aligned {
    uint32_t words[kCount];
  };
  if (there) *static_cast<Aligned*>(to) = std::bit_cast<Aligned>(words);
}

template <class T>
void multiply_add(T, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4], float (&d)[4],
                  const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes = host_shim::meet({a[0], a[1], a[2], a[3], b0, b1}, where);
  for (int i = 0; i < 4; ++i) d[i] = c[i];
  host_shim::add_products(lanes, 16, [](uint16_t bits) { return widen(T{bits}); }, d);
}

template <class T>
void multiply_add(T, const uint32_t (&a)[2], uint32_t b, const float (&c)[4], float (&d)[4],
                  const host_shim::Where& where = host_shim::Where::current()) {
  const host_shim::Words* lanes = host_shim::meet({a[0], a[1], 0, 0, b}, where);
  for (int i = 0; i < 4; ++i) d[i] = c[i];
  host_shim::add_products(lanes, 8, [](uint16_t bits) { return widen(T{bits}); }, d);
}

template <class T>
void multiply_add(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sums)[4],
                  const host_shim::Where& where = host_shim::Where::current()) {
  multiply_add(T{}, a, b0, b1, sums, sums, where);
}

// What is subnormal counts as 0.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float fast_power_of_2(float x) { return flushed(std::exp2(flushed(x))); }
inline float fast_reciprocal(float x) { return flushed(1.0f / flushed(x)); }

inline uint32_t high_of_product(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}
inline float multiply_add_within_1(float a, float b, float c) {
  const float sum = std::fma(a, b, c);
  return sum > 1.0f ? 1.0f : sum > 0.0f ? sum : 0.0f;
}

template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, const Stream& stream,
                   Parameters... parameters) {
  return host_shim::run([&] { kernel(parameters...); }, grid, stream);
}

}  // namespace effkernels::cuda
