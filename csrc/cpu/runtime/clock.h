#pragma once

// Notes what workers spend their time on, if anybody asked: without memory to note it in, no clock is read.

#include <cstdint>

#include "args/common.h"
#include "cpu/runtime/threads.h"

namespace effkernels::cpu {

// What a worker does. Depthwise convolutions include their activation, which is computed in registers.
enum class Work : int {
  kProduct,
  kDepthwise,
  kActivation,  // of what products made, with BatchNorm's scale where that is not in the weights
  kPacking,     // of weights
  kRows,        // input that is gathered, converted or moved before it is multiplied or convolved
  kOutput,      // results that are stored, with the residual, or summed for a mean
  kGate,        // squeeze-excitation
  kKinds,
};
inline constexpr const char* kWorkNames[] = {"product", "depthwise", "activation", "packing",
                                             "rows",    "output",    "gate"};
inline constexpr int kWorkKinds = static_cast<int>(Work::kKinds);
static_assert(sizeof kWorkNames / sizeof *kWorkNames == kWorkKinds);

// The time of one worker, on a cache line of its own.
struct alignas(64) WorkTicks {
  uint64_t last = 0;
  uint64_t ticks[kWorkKinds] = {};
};

// A counter that runs at a constant rate.
uint64_t ticks();

// Where one worker notes its time. What it does between two calls of lap() is of the second one's kind.
class Clock {
 public:
  Clock() = default;
  EFFKERNELS_INLINE Clock(const Threads& threads, int worker)
      : noted_(threads.ticks == nullptr ? nullptr : threads.ticks + worker) {
    if (noted_ != nullptr) noted_->last = ticks();
  }

  EFFKERNELS_INLINE void lap(Work work) const {
    if (noted_ == nullptr) return;
    const uint64_t now = ticks();
    noted_->ticks[static_cast<int>(work)] += now - noted_->last;
    noted_->last = now;
  }

 private:
  WorkTicks* noted_ = nullptr;
};

}  // namespace effkernels::cpu
