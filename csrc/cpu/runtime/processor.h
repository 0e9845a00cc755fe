#pragma once

#include <string>
#include <vector>

namespace effkernels::cpu {

// The vector instruction sets that this processor and its operating system support, by gcc's names.
std::vector<std::string> detected_instruction_sets();

// Those that the compiler was allowed to use in every file: what a machine needs to run this build at all.
std::vector<std::string> compiled_instruction_sets();

}  // namespace effkernels::cpu
