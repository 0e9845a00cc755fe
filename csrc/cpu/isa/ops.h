#pragma once

// The ops of this instruction set; each is defined in the file of its name.

#include "cpu/kernels.h"

namespace effkernels::cpu::EFFKERNELS_ISA {

#define EFFKERNELS_DECLARE_OP(op, Args) extern const Op<Args> op;
EFFKERNELS_FOR_EACH_OP(EFFKERNELS_DECLARE_OP)
#undef EFFKERNELS_DECLARE_OP

}  // namespace effkernels::cpu::EFFKERNELS_ISA
