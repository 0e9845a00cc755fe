#pragma once

#include <vector>

#include "cuda/common/stream.h"

namespace effkernels::binding {

// Where this thread's launches of networks and blocks are noted; null where they are not.
std::vector<cuda::LaunchRecord>* launch_records();

}  // namespace effkernels::binding
