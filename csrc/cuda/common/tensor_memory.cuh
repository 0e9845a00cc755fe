#pragma once

// Copies of boxes of a tensor between global and shared memory by the tensor memory accelerator (TMA), and
// the barriers in shared memory (mbarriers) that say when they are done: compute capability 9.0 and newer.
// Kernels that use this are compiled for such architectures alone, and launched where `has_tensor_memory`
// says so.
//
// With EFFKERNELS_HOST_SHIM the same names come from the host shim of the tests. There bytes land only when
// they are waited for, and a wait that nothing can end is an error.

#include "cuda/common/device.cuh"

namespace effkernels::cuda {

// How the pieces of 16 bytes of a box are permuted in shared memory, so that eight rows can be read without
// conflicts of banks: the number of a piece within a line of 32, 64 or 128 bytes is xored with the number of
// the line of 128 bytes. The inner side of a box is at most as long as the name says.
enum class Swizzle : uint8_t { kNone, k32Bytes, k64Bytes, k128Bytes };

// Where the swizzle puts the piece of 16 bytes at this address of shared memory.
EFFKERNELS_HOST_DEVICE uint32_t swizzled(Swizzle swizzle, uint32_t address) {
  const uint32_t mask = swizzle == Swizzle::kNone      ? 0
                        : swizzle == Swizzle::k32Bytes ? 1
                        : swizzle == Swizzle::k64Bytes ? 3
                                                       : 7;
  return address ^ ((address >> 7 & mask) << 4);
}

constexpr int kMostSides = 5;

// A tensor in global memory, and the boxes that it is copied in. Sides go from the innermost, whose elements
// are neighbours, to the outermost. What of a box lies outside of the tensor, also below 0, is read as zeros
// and not written.
struct TensorBoxes {
  const void* data;  // aligned to 16 bytes
  Dtype dtype;
  int sides;
  int64_t size[kMostSides];  // elements, 1 to 2^32
  int64_t
      stride[kMostSides];  // bytes from one to the next, a multiple of 16; that of the innermost is not read
  int box[kMostSides];     // elements, 1 to 256; the innermost side is a multiple of 16 bytes
  Swizzle swizzle;
};

}  // namespace effkernels::cuda

#ifdef EFFKERNELS_HOST_SHIM
#include "host_shim_tensor_memory.h"
#else

namespace effkernels::cuda {

// What TMA is told of a tensor. A kernel takes it as a parameter, declared with EFFKERNELS_GRID_CONSTANT: TMA
// reads it where the launch has put it, so it must not be copied.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

#define EFFKERNELS_GRID_CONSTANT const __grid_constant__

// 1 in device code for architectures that have TMA. 0 elsewhere: there the body of a kernel that needs it
// must be left out.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define EFFKERNELS_TENSOR_MEMORY 1
#else
#define EFFKERNELS_TENSOR_MEMORY 0
#endif

// Whether the device code that the current device runs this kernel with was compiled for 9.0 or newer. A
// build may hold none for this device, or PTX for an older one, without the body of the kernel. Asked of what
// is loaded, once for each device.
template <auto kKernel>
bool has_tensor_memory() {
  constexpr int kDevices = 64;
  static int known[kDevices];  // 0: not asked yet, 1: no, 2: yes; read and written as a whole
  int device = 0;
  cudaGetDevice(&device);
  int answer = device < kDevices ? __atomic_load_n(&known[device], __ATOMIC_RELAXED) : 0;
  if (answer != 0) return answer == 2;
  cudaFuncAttributes attributes{};
  if (cudaFuncGetAttributes(&attributes, kKernel) == cudaSuccess) {
    answer = attributes.ptxVersion >= 90 ? 2 : 1;
  } else {
    cudaGetLastError();  // clears it: no code for this device is an answer
    answer = 1;
  }
  if (device < kDevices) __atomic_store_n(&known[device], answer, __ATOMIC_RELAXED);
  return answer == 2;
}

// mbarriers: 8 bytes of shared memory, aligned to 8. A phase of one ends when so many threads have arrived as
// it was made for, and as many bytes have come as were expected; then the next one begins.

EFFKERNELS_DEVICE void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After those that this thread has made, before copies use them. Other threads may after a barrier.
EFFKERNELS_DEVICE void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

EFFKERNELS_DEVICE void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and makes the phase wait for so many bytes of copies too.
EFFKERNELS_DEVICE void mbarrier_arrive_expecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Waits for the end of a phase: of the first with parity 0, of the second with 1, of the third with 0 again.
EFFKERNELS_DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// A copy to the block's own shared memory, as PTX names it from 8.6 on. Before, there were only copies to any
// block of the cluster: with these, code for 12.0 checks each time whose memory it is, and has a call for
// that of other blocks, which takes a stack frame and 13 registers.
#if __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1208
#define EFFKERNELS_TO_OWN_BLOCK "shared::cta.global.mbarrier::complete_tx::bytes"
#else
#define EFFKERNELS_TO_OWN_BLOCK "shared::cluster.global.mbarrier::complete_tx::bytes"
#endif

// Starts to copy a box; the mbarrier is told when its bytes have come. `to` is aligned to 128 bytes. One
// thread does this for all.
EFFKERNELS_DEVICE void tma_load(uint32_t to, const TensorMap& map, int i, int j, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d." EFFKERNELS_TO_OWN_BLOCK " [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
               "l"(&map), "r"(i), "r"(j), "r"(barrier)
               : "memory");
}
EFFKERNELS_DEVICE void tma_load(uint32_t to, const TensorMap& map, int i, int j, int k, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d." EFFKERNELS_TO_OWN_BLOCK
               " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
               "l"(&map), "r"(i), "r"(j), "r"(k), "r"(barrier)
               : "memory");
}
EFFKERNELS_DEVICE void tma_load(uint32_t to, const TensorMap& map, int i, int j, int k, int l,
                                uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d." EFFKERNELS_TO_OWN_BLOCK
               " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
               "l"(&map), "r"(i), "r"(j), "r"(k), "r"(l), "r"(barrier)
               : "memory");
}

// TMA stores that are started after it can read what this thread has written to shared memory, and what
// others have written before a barrier that this thread has passed.
EFFKERNELS_DEVICE void fence_for_tma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Starts to copy a box to the tensor, as part of a group of this thread's; see `wait_for_groups`.
EFFKERNELS_DEVICE void tma_store(const TensorMap& map, uint32_t from, int i, int j) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
               "r"(i), "r"(j), "r"(from)
               : "memory");
}
EFFKERNELS_DEVICE void tma_store(const TensorMap& map, uint32_t from, int i, int j, int k) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(&map),
               "r"(i), "r"(j), "r"(k), "r"(from)
               : "memory");
}
EFFKERNELS_DEVICE void tma_store(const TensorMap& map, uint32_t from, int i, int j, int k, int l) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
      "r"(i), "r"(j), "r"(k), "r"(l), "r"(from)
      : "memory");
}

// Ends the group that the stores since the last one belong to.
EFFKERNELS_DEVICE void commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until of this thread's groups all but the last kLeft have read shared memory, which may then be
// written again. A block must not end before.
template <int kLeft>
EFFKERNELS_DEVICE void wait_for_groups_to_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
}

// The same until they have written global memory.
template <int kLeft>
EFFKERNELS_DEVICE void wait_for_groups() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Writes four 8x8 matrices of 16-bit elements, as `load_matrices` reads them: each lane names a row, 16
// aligned bytes. Every lane of the warp must come here.
EFFKERNELS_DEVICE void store_matrices(uint32_t row, const uint32_t (&elements)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(elements[0]), "r"(elements[1]), "r"(elements[2]), "r"(elements[3])
               : "memory");
}

}  // namespace effkernels::cuda

#endif

namespace effkernels::cuda {

// Fills in `map`; returns nullptr, or what is wrong. It belongs to no device.
const char* encode(const TensorBoxes& boxes, TensorMap& map);

}  // namespace effkernels::cuda
