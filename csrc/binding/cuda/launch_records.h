#pragma once

#include <string>
#include <vector>

#include "cuda/common/stream.h"

namespace effkernels::binding {

// Where this thread's launches of networks and blocks are noted; null where they are not.
std::vector<cuda::LaunchRecord>* launch_records();

// Appends a launch as words: its kernel and its layer ("-" where it has none); blocks, threads of a block,
// bytes of shared memory, blocks of a cluster, 1 where it may begin before the one before has ended; for
// which part of the images of a block it is, of how many; the network's step; bytes, and FLOPs.
void append_launch(std::string& text, const cuda::LaunchRecord& launch);

}  // namespace effkernels::binding
