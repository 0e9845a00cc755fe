#pragma once

// Clusters: neighbouring blocks that run at the same time and write to each other's shared memory. Compute
// capability 9.0 and newer. Kernels that use them are launched with a Grid that says how many blocks are in
// one, at most 8, and where `has_tensor_memory` says that there is device code for them.
//
// With EFFKERNELS_HOST_SHIM the same names come from the host shim of the tests, which runs the blocks of a
// cluster concurrently.

#include "cuda/common/device.cuh"

#ifdef EFFKERNELS_HOST_SHIM
#include "host_shim_cluster.h"
#else

namespace effkernels::cuda {

// 1 in device code for architectures that have clusters. 0 elsewhere: there the body of a kernel that needs
// them must be left out.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define EFFKERNELS_CLUSTERS 1
#else
#define EFFKERNELS_CLUSTERS 0
#endif

// Of this block in its cluster.
EFFKERNELS_DEVICE int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// A barrier of all threads of a cluster in two halves, each of which every thread comes to, in turns: what a
// thread wrote before it arrived, others see after they have waited. No block may write to another one before
// the first barrier, when some may not have started, nor end before the last one in which it is written to.
EFFKERNELS_DEVICE void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
EFFKERNELS_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Writes where `own`, in this block's shared memory, is in that of another block of the cluster.
EFFKERNELS_DEVICE void store_to_block(int rank, const float* own, float value) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

}  // namespace effkernels::cuda

#endif
