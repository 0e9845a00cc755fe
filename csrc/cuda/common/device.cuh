#pragma once

// All that kernels use of CUDA beyond C++. With EFFKERNELS_HOST_SHIM the same names come from the host shim
// of the tests, which runs the same kernels on a CPU. Grids and blocks have one dimension.

#include <cmath>
#include <cstdint>

#include "args/common.h"
#include "cuda/common/stream.h"

namespace effkernels::cuda {

// The size of a launch. More blocks than a grid can have are an error that `launch` reports.
struct Grid {
  const char* kernel;  // its name, for people
  int64_t blocks;
  int threads;
  int64_t shared_bytes;
  int cluster = 1;  // neighbouring blocks that run at the same time; see cluster.cuh

  LaunchRecord record(bool dependent) const {
    return {kernel, blocks, threads, shared_bytes, cluster, dependent};
  }
};

constexpr int kWarp = 32;
constexpr int64_t kMostBlocks = INT32_MAX;
// Shared memory that every GPU gives a block without an attribute.
constexpr int64_t kSharedBytes = 48 * 1024;
// Shared memory that a block can ask for on the GPUs with the least (compute capability 8.6, 8.9, 12.0).
constexpr int64_t kMostSharedBytes = 99 * 1024;
// Groups of copies that a thread can leave open while it waits for older ones.
constexpr int kMostOpenGroups = 4;

// What a device has.
struct DeviceLimits {
  int multiprocessors;
  int64_t block_shared_bytes;           // that a block can ask for
  int64_t multiprocessor_shared_bytes;  // for all blocks of a multiprocessor, and kReservedBytes for each
};

// Shared memory that the system takes for each block.
constexpr int64_t kReservedBytes = 1024;

// Of the current device; asked once for each.
DeviceLimits device_limits();

// Blocks that keep the current device busy: two on each multiprocessor.
inline int64_t blocks_to_fill() { return 2 * int64_t{device_limits().multiprocessors}; }

}  // namespace effkernels::cuda

#ifdef EFFKERNELS_HOST_SHIM
#include "host_shim.h"
#else

// Neither <atomic> nor CUDA's headers of 16-bit types: with them every file takes two seconds more to
// compile.
#include <cuda_runtime.h>

#define EFFKERNELS_DEVICE __device__ __forceinline__
#define EFFKERNELS_HOST_DEVICE __host__ __device__ constexpr
// At most `threads` a block, and registers few enough for `blocks` of them on a multiprocessor.
#define EFFKERNELS_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

namespace effkernels::cuda {

EFFKERNELS_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
EFFKERNELS_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
EFFKERNELS_DEVICE int64_t block_index() { return blockIdx.x; }

// Every thread of the block must come here.
EFFKERNELS_DEVICE void barrier() { __syncthreads(); }

// In a launch that may begin before the one before it has ended: waits for it, and so for all before; see
// Sequence. Everything that it has written can be read then, by all of the block after a barrier.
EFFKERNELS_DEVICE void wait_for_previous_launch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next launch begin when every block has come here, or ended: that is when all of them run, so it
// takes nothing away from those that still have to begin.
EFFKERNELS_DEVICE void let_next_launch_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// The block's dynamic shared memory, aligned to 16 bytes. It holds garbage at first.
EFFKERNELS_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

// The threads of a warp wait for each other, and see what each has written.
EFFKERNELS_DEVICE void warp_barrier() { __syncwarp(); }

// A value that is the same in all lanes, for the compiler to know.
EFFKERNELS_DEVICE int uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// The 32-bit address in shared memory, which is what instructions for shared memory take.
EFFKERNELS_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// The pointer to an address in shared memory. It is computed from a pointer to shared memory, so that the
// compiler knows the address space: otherwise ptxas takes minutes for a kernel with products of warpgroups,
// and the code reads more slowly.
EFFKERNELS_DEVICE void* shared_at(uint32_t address) {
  return shared_memory() + (address - shared_address(shared_memory()));
}

// The value of the lane whose number differs by `mask`. Every lane of the warp must come here.
EFFKERNELS_DEVICE float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// Reads four 8x8 matrices of 16-bit elements from shared memory: lane 8 * i + j names row j of matrix i, 16
// aligned bytes, and gets of each matrix the elements 2 * (lane % 4) and the next of row lane / 4. Every lane
// of the warp must come here.
EFFKERNELS_DEVICE void load_matrices(uint32_t row, uint32_t (&elements)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(elements[0]), "=r"(elements[1]), "=r"(elements[2]), "=r"(elements[3])
               : "r"(row)
               : "memory");
}
EFFKERNELS_DEVICE void load_matrices(const void* row, uint32_t (&elements)[4]) {
  load_matrices(shared_address(row), elements);
}

// The same of two matrices, whose rows lanes 0 to 15 name.
EFFKERNELS_DEVICE void load_matrices(uint32_t row, uint32_t (&elements)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(elements[0]), "=r"(elements[1])
               : "r"(row)
               : "memory");
}

// The same of one matrix, whose rows lanes 0 to 7 name.
EFFKERNELS_DEVICE void load_matrices(uint32_t row, uint32_t (&elements)[1]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(elements[0])
               : "r"(row)
               : "memory");
}

// d = a * b + c on the tensor cores, for a of 16x16 elements, b of 16x8, c and d of 16x8, as PTX spreads
// those of mma.m16n8k16 over the lanes; and, with half of a and b, those of mma.m16n8k8. Every lane of the
// warp must come here.
#define EFFKERNELS_MULTIPLY_ADD(Type, name)                                                              \
  EFFKERNELS_DEVICE void multiply_add(Type, const uint32_t (&a)[4], uint32_t b0, uint32_t b1,            \
                                      const float (&c)[4], float (&d)[4]) {                              \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                                           \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"                       \
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                 \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), \
          "f"(c[3]));                                                                                    \
  }                                                                                                      \
  EFFKERNELS_DEVICE void multiply_add(Type, const uint32_t (&a)[2], uint32_t b, const float (&c)[4],     \
                                      float (&d)[4]) {                                                   \
    asm("mma.sync.aligned.m16n8k8.row.col.f32." name "." name                                            \
        ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"                                      \
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                 \
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));                     \
  }
EFFKERNELS_MULTIPLY_ADD(Half, "f16")
EFFKERNELS_MULTIPLY_ADD(BFloat16, "bf16")
#undef EFFKERNELS_MULTIPLY_ADD

// sums += a * b
template <class T>
EFFKERNELS_DEVICE void multiply_add(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sums)[4]) {
  multiply_add(T{}, a, b0, b1, sums, sums);
}

// Starts to copy 16 aligned bytes to shared memory; zeros where not `valid`, when `from` is not read.
EFFKERNELS_DEVICE void copy_16_bytes(void* to, const void* from, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}

// Waits for the copies that this thread has started. Others see them after a barrier.
EFFKERNELS_DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Makes a group of the copies that this thread has started since the group before: of none, too.
EFFKERNELS_DEVICE void end_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups of this thread but the `newest`, of which more than kMostOpenGroups count as so many.
// Others see the copies after a barrier.
EFFKERNELS_DEVICE void wait_for_copy_groups(int newest) {
  switch (newest) {
    case 0:
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      break;
    case 1:
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      break;
    case 2:
      asm volatile("cp.async.wait_group 2;" ::: "memory");
      break;
    case 3:
      asm volatile("cp.async.wait_group 3;" ::: "memory");
      break;
    default:
      asm volatile("cp.async.wait_group 4;" ::: "memory");
      break;
  }
}

EFFKERNELS_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }

EFFKERNELS_DEVICE float widen(float x) { return x; }
EFFKERNELS_DEVICE float widen(uint8_t x) { return static_cast<float>(x); }
EFFKERNELS_DEVICE float widen(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
EFFKERNELS_DEVICE float widen(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// To the nearest, ties to even.
EFFKERNELS_DEVICE void narrow(float x, float& to) { to = x; }
EFFKERNELS_DEVICE void narrow(float x, BFloat16& to) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
EFFKERNELS_DEVICE void narrow(float x, Half& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }

// Two elements in a word, the first in its lower half.
template <class T>
EFFKERNELS_DEVICE uint32_t narrow_pair(float first, float second);
template <>
EFFKERNELS_DEVICE uint32_t narrow_pair<BFloat16>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}
template <>
EFFKERNELS_DEVICE uint32_t narrow_pair<Half>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}

// Writes words to memory aligned to all of them, where `there`: without a branch, which takes more
// instructions than the store.
EFFKERNELS_DEVICE void store_where(bool there, void* to, const uint32_t (&words)[4]) {
  asm volatile(
      "{.reg .pred there; setp.ne.u32 there, %0, 0; @there st.global.v4.b32 [%1], {%2, %3, %4, %5};}" ::"r"(
          static_cast<uint32_t>(there)),
      "l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
      : "memory");
}
EFFKERNELS_DEVICE void store_where(bool there, void* to, const uint32_t (&words)[2]) {
  asm volatile("{.reg .pred there; setp.ne.u32 there, %0, 0; @there st.global.v2.b32 [%1], {%2, %3};}" ::"r"(
                   static_cast<uint32_t>(there)),
               "l"(to), "r"(words[0]), "r"(words[1])
               : "memory");
}

// One special-function operation each, with errors of a few units in the last place. Subnormal numbers count
// as 0; __expf and __fdividef keep them, for three instructions more.
EFFKERNELS_DEVICE float fast_power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
EFFKERNELS_DEVICE float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The upper 32 of the product's 64 bits.
EFFKERNELS_DEVICE uint32_t high_of_product(uint32_t a, uint32_t b) { return __umulhi(a, b); }

// a * b + c, 0 where that is below 0 or NaN, and 1 where above.
EFFKERNELS_DEVICE float multiply_add_within_1(float a, float b, float c) {
  float y;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c));
  return y;
}

// The host shim watches which memory kernels touch; see its header.
constexpr bool kWatchesMemory = false;
inline void watch_memory(const MemoryRange*, int) {}
inline void allow_memory(const MemoryRange*, int) {}

// Whether programmatic dependent launches can be captured in graphs: from CUDA 12.3 on.
inline bool driver_captures_dependent_launches() {
  static const bool captures = [] {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess && version >= 12030;
  }();
  return captures;
}

// Launches on a stream; returns nullptr, or CUDA's error message.
template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, const Stream& stream,
                   Parameters... parameters) {
  if (grid.blocks > kMostBlocks) return "the tensors are too large for one launch";
  if (grid.shared_bytes > kSharedBytes) {
    // Set at each launch, always to the same: the attribute belongs to the current device, and several
    // threads may launch at once.
    const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(device_limits().block_shared_bytes));
    if (status != cudaSuccess) return cudaGetErrorString(status);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream.handle());
  cudaLaunchAttribute attributes[2]{};
  config.attrs = attributes;
  if (grid.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(grid.cluster), 1, 1};
  }
  const bool dependent = stream.next_is_dependent();
  if (dependent) {
    cudaLaunchAttribute& serialization = attributes[config.numAttrs++];
    serialization.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    serialization.val.programmaticStreamSerializationAllowed = 1;
  }
  cudaError_t status = cudaLaunchKernelEx(&config, kernel, parameters...);
  // Also clears the error, which the next launch would report otherwise.
  const cudaError_t last = cudaGetLastError();
  if (status == cudaSuccess) status = last;
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (stream.sequence() != nullptr) stream.sequence()->add(grid.record(dependent));
  return nullptr;
}

}  // namespace effkernels::cuda

#endif
