// Clusters in the host shim.

#include "cuda/common/cluster.cuh"

#include <algorithm>

#include "scheduler.h"

namespace effkernels::host_shim {
namespace {

std::string at(const Where& where) {
  return "thread " + std::to_string(here().thread) + " of block " + std::to_string(here().rank) + " at " +
         place_of(where);
}

}  // namespace

void arrive_at_cluster(const Where& where) {
  Fibre& fibre = *scheduler.current;
  if (fibre.arrivals != fibre.waits) fail("a barrier of a cluster is arrived at twice: " + at(where));
  ++fibre.arrivals;
}

void wait_for_cluster(const Where& where) {
  Fibre& fibre = *scheduler.current;
  if (fibre.arrivals == fibre.waits) fail("a barrier of a cluster is not arrived at: " + at(where));
  ++fibre.waits;
  const auto first = scheduler.fibres.begin();
  const int64_t arrivals = fibre.arrivals;
  wait_until(
      [=] {
        return std::all_of(first, first + scheduler.running,
                           [=](const Fibre& other) { return other.arrivals >= arrivals; });
      },
      "a barrier of a cluster: " + at(where));
}

float* in_block(int rank, const float* own, const Where& where) {
  if (rank < 0 || rank >= static_cast<int>(scheduler.shared.size())) {
    fail("there is no block " + std::to_string(rank) + " in the cluster: " + at(where));
  }
  if (scheduler.current->waits == 0) {
    fail("a block is written to that may not have started: " + at(where));
  }
  const int threads = here().threads;
  const auto first = scheduler.fibres.begin() + static_cast<int64_t>(rank) * threads;
  if (std::all_of(first, first + threads, [](const Fibre& fibre) { return fibre.state == State::kDone; })) {
    fail("block " + std::to_string(rank) + " is written to and has ended: " + at(where));
  }
  const auto offset = reinterpret_cast<const char*>(own) - here().shared;
  return reinterpret_cast<float*>(scheduler.shared[rank] + offset);
}

}  // namespace effkernels::host_shim
