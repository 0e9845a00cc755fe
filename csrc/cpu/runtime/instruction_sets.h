#pragma once

// The kernels are compiled once for each of several instruction sets; one of these is in use.

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace effkernels::cpu {

// The instruction sets that were compiled and that this processor supports, slowest first.
std::vector<std::string> usable_instruction_sets();

// The kernels of the instruction set in use: initially the fastest.
const Kernels& kernels();

// Changes it for all threads. Throws std::invalid_argument if this one cannot be used.
void use_instruction_set(const std::string& name);

}  // namespace effkernels::cpu
