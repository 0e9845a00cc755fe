#pragma once

// Runs ops on plain threads, without torch.

#include <cstdlib>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/runtime/instruction_sets.h"

namespace effkernels::cpu {

inline void run_on_threads(void*, int workers, void (*body)(const void* context, int worker),
                           const void* context) {
  std::vector<std::thread> others;
  for (int worker = 1; worker < workers; ++worker) others.emplace_back(body, context, worker);
  body(context, 0);
  for (std::thread& other : others) other.join();
}

// This many threads, each new for each step.
inline Threads plain_threads(int count) { return {count, run_on_threads}; }

// Runs an op of the instruction set in use, with a workspace that is filled with NaN.
template <class Args>
void run_op(const Op<Args>* const Kernels::* op, const Args& args, const Threads& threads) {
  const Op<Args>& chosen = *(kernels().*op);
  const auto floats = static_cast<size_t>(chosen.scratch_floats(args, threads.count));
  // Aligned like torch's tensors.
  const std::unique_ptr<float, decltype(&std::free)> scratch(
      static_cast<float*>(std::aligned_alloc(64, (floats / 16 + 1) * 64)), std::free);
  for (size_t i = 0; i < floats; ++i) scratch.get()[i] = std::numeric_limits<float>::quiet_NaN();
  chosen.run(args, scratch.get(), threads);
}

}  // namespace effkernels::cpu
