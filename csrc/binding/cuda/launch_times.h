#pragma once

#include <memory>

#include "cuda/common/launch_timer.h"

namespace effkernels::binding {

// For the run of a network or block that this thread begins now; null where it is not timed.
std::unique_ptr<cuda::LaunchTimer> launch_timer();

// Notes what a timer of this thread has found.
void keep_times(const cuda::RunTimes& times);

}  // namespace effkernels::binding
