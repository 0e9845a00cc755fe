// Dependent launches with one mistake each, and one without.

#include <cstring>

#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {
namespace {

constexpr int kThreads = 64;

enum class Mistake { kNone, kReads, kWrites, kCopies, kBox, kNeverWaits, kKeepsTheNext, kBeside };

EFFKERNELS_KERNEL(kThreads, 1) first_kernel(float* out) {
  let_next_launch_begin();
  wait_for_previous_launch();
  out[thread_index()] = static_cast<float>(thread_index());
}

// Doubles, with all that may go wrong.
EFFKERNELS_KERNEL(kThreads, 1)
second_kernel(EFFKERNELS_GRID_CONSTANT TensorMap map, float* out, float* beside, Mistake mistake) {
  const int i = thread_index();
  float* own = reinterpret_cast<float*>(shared_memory());
  if (mistake != Mistake::kKeepsTheNext) let_next_launch_begin();
  if (mistake == Mistake::kReads && i == 5) own[i] = out[i];
  if (mistake == Mistake::kWrites && i == 5) out[i] = 0.0f;
  if (mistake == Mistake::kCopies && i % 4 == 0) copy_16_bytes(own + i, out + i, true);
  if (mistake == Mistake::kBox && i == 0) {
    const uint32_t barrier = shared_address(shared_memory());
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
    tma_load(barrier + 112, map, 0, 0, barrier);
  }
  // One thread waits; the others do so for it.
  if (i == 0 && mistake != Mistake::kNeverWaits) wait_for_previous_launch();
  barrier();
  if (mistake != Mistake::kNeverWaits) out[i] *= 2.0f;
  if (mistake == Mistake::kBeside && i == 0) *beside = 1.0f;
}

struct Planted {
  const char* name;
  Mistake mistake;
};

constexpr Planted kDependent[] = {
    {"dependent", Mistake::kNone},
    {"dependent reads too early", Mistake::kReads},
    {"dependent writes too early", Mistake::kWrites},
    {"dependent copies too early", Mistake::kCopies},
    {"dependent box too early", Mistake::kBox},
    {"dependent never waits", Mistake::kNeverWaits},
    {"dependent keeps the next", Mistake::kKeepsTheNext},
    {"dependent beside its memory", Mistake::kBeside},
};

}  // namespace

// As `effkernels_run_planted`.
const char* run_planted_dependent(const char* name, float* out) {
  for (const Planted& planted : kDependent) {
    if (std::strcmp(planted.name, name) != 0) continue;
    alignas(16) float others[kThreads] = {};
    const MemoryRange all[] = {{out, kThreads * 4}, {others, sizeof others}};
    TensorMap map;
    const char* error = encode({out, Dtype::kFloat, 2, {8, 8}, {0, 32}, {8, 8}, Swizzle::kNone}, map);
    if (error != nullptr) return error;
    watch_memory(all, 2);
    allow_memory(all, 1);
    Sequence sequence(true);
    const Stream stream(nullptr, &sequence);
    error = launch(first_kernel, {"planted", 1, kThreads, 0}, stream, out);
    if (error == nullptr) {
      error =
          launch(second_kernel, {"planted", 1, kThreads, 512}, stream, map, out, others + 0, planted.mistake);
    }
    watch_memory(nullptr, 0);
    return error;
  }
  return "no such kernel";
}

}  // namespace effkernels::cuda
