#pragma once

#include <string>
#include <vector>

namespace effkernels::cpu {

// The vector instruction sets that this processor and its operating system support, by gcc's names.
std::vector<std::string> detected_instruction_sets();

// Those that the compiler was allowed to use in every file: what a machine needs to run this build at all.
std::vector<std::string> compiled_instruction_sets();

// Whether this processor has the tile registers of AMX and multiplies bfloat16 with them.
bool has_tiles();

// Asks the operating system to let this process use them; false if it does not.
bool may_use_tiles();

}  // namespace effkernels::cpu
