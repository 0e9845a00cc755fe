#pragma once

#include <functional>

#include "cpu/runtime/threads.h"

namespace effkernels::cpu {

// Calls work(crew) on the calling thread. `crew` is the threads of `pool`, which come once and stay until
// work() returns, because a network has many short steps. Only the calling thread may use it.
//
// Whoever is there takes the next part of a step. A thread that the operating system has not started yet is
// not waited for before the end, and while all are late the caller does everything itself.
void with_crew(const Threads& pool, const std::function<void(const Threads& crew)>& work);

}  // namespace effkernels::cpu
