#pragma once

// What csrc/cuda/common/cluster.cuh has from CUDA, on a CPU: the blocks of a cluster are fibres that run in
// any order, each with shared memory of its own. It is an error to write to a block before it is sure to have
// started, or after it has ended, and to come to only one half of a barrier.

#include "host_shim.h"

#define EFFKERNELS_CLUSTERS 1

namespace effkernels::host_shim {

void arrive_at_cluster(const Where& where);
void wait_for_cluster(const Where& where);
// The same place in the shared memory of another block.
float* in_block(int rank, const float* own, const Where& where);

}  // namespace effkernels::host_shim

namespace effkernels::cuda {

inline int cluster_rank() { return host_shim::here().rank; }

inline void cluster_arrive(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::arrive_at_cluster(where);
}

inline void cluster_wait(const host_shim::Where& where = host_shim::Where::current()) {
  host_shim::wait_for_cluster(where);
}

inline void store_to_block(int rank, const float* own, float value,
                           const host_shim::Where& where = host_shim::Where::current()) {
  *host_shim::in_block(rank, own, where) = value;
}

}  // namespace effkernels::cuda
