#pragma once

// Runs a CPU kernel on torch's threads, with the workspace of the calling thread.

#include "binding/common/arguments.h"
#include "binding/cpu/workspace.h"
#include "cpu/kernels.h"
#include "cpu/runtime/instruction_sets.h"

namespace effkernels::binding {

inline cpu::Threads torch_threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](void*, int workers, void (*body)(const void*, int), const void* context) {
            torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) body(context, static_cast<int>(i));
            });
          }};
}

template <class Args>
void run(const cpu::Op<Args>& op, const Args& args) {
  const cpu::Threads threads = torch_threads();
  const Workspace scratch(op.scratch_floats(args, threads.count));
  op.run(args, scratch.data(), threads);
}

}  // namespace effkernels::binding
