#pragma once

// The kernels were compiled once for each of several instruction sets; one of them is in use.

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace effkernels::cpu {

// The ones that were compiled and that this processor has, slowest first.
std::vector<std::string> usable_instruction_sets();

// The kernels of the one in use: at first the fastest.
const Kernels& kernels();

// Changes it for all threads. Throws std::invalid_argument for one that is not usable.
void use_instruction_set(const std::string& name);

}  // namespace effkernels::cpu
