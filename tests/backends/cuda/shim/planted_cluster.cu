// Kernels of two blocks in a cluster with one mistake each, and one without.

#include <cstring>

#include "cuda/common/cluster.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = kWarp, kBlocks = 2;

enum class Mistake : uint8_t {
  kNone,
  kEarly,         // writes before the other block is sure to have started
  kNotArrived,    // waits without having arrived
  kArrivedTwice,  // and does not wait between
  kNotWaited,     // arrives, and ends
  kMissed,        // one thread does not come
  kEnded,         // writes to a block that has ended
  kNoSuchBlock,
  kBeyond,      // writes behind the other block's memory
  kUnfinished,  // reads before the barrier after the writes
};

// Each thread sends its number to both blocks, and adds what it got.
EFFKERNELS_KERNEL(kThreads, 1) cluster_kernel(float* out, Mistake mistake) {
  float* own = reinterpret_cast<float*>(shared_memory());  // [from block][thread]
  const int rank = cluster_rank(), i = thread_index(), place = rank * kThreads + i;
  const auto store = [&](int block) {
    const int to = mistake == Mistake::kNoSuchBlock ? block + 1 : block;
    const int beyond = mistake == Mistake::kBeyond ? kBlocks * kThreads : 0;
    store_to_block(to, own + place + beyond, static_cast<float>(place));
  };
  if (mistake == Mistake::kEarly && rank == 0) store(1);
  if (mistake != Mistake::kNotArrived) cluster_arrive();
  if (mistake == Mistake::kArrivedTwice) cluster_arrive();
  if (mistake == Mistake::kNotWaited) return;
  if (mistake == Mistake::kMissed && rank == 1 && i == 3) return;
  cluster_wait();
  if (mistake == Mistake::kEnded) {
    cluster_arrive();
    cluster_wait();
    if (rank == 1) return;
    // Until the other block's threads have gone.
    for (int turn = 0; turn < 4; ++turn) barrier();
  }
  for (int block = 0; block < kBlocks; ++block) store(block);
  const float early = own[i] + own[kThreads + i];
  cluster_arrive();
  cluster_wait();
  out[place] = mistake == Mistake::kUnfinished ? early : own[i] + own[kThreads + i];
}

struct Planted {
  const char* name;
  Mistake mistake;
};

constexpr Planted kClusters[] = {
    {"cluster", Mistake::kNone},
    {"cluster written too early", Mistake::kEarly},
    {"cluster not arrived", Mistake::kNotArrived},
    {"cluster arrived twice", Mistake::kArrivedTwice},
    {"cluster not waited for", Mistake::kNotWaited},
    {"cluster missed", Mistake::kMissed},
    {"cluster ended", Mistake::kEnded},
    {"cluster without such a block", Mistake::kNoSuchBlock},
    {"cluster beyond memory", Mistake::kBeyond},
    {"cluster unfinished", Mistake::kUnfinished},
};

}  // namespace

// As `effkernels_run_planted`.
const char* run_planted_with_clusters(const char* name, float* out) {
  for (const Planted& planted : kClusters) {
    if (std::strcmp(planted.name, name) == 0) {
      const Grid grid{"planted", kBlocks, kThreads, kBlocks * kThreads * 4, kBlocks};
      return launch(cluster_kernel, grid, nullptr, out, planted.mistake);
    }
  }
  return "no such kernel";
}

}  // namespace effkernels::cuda
