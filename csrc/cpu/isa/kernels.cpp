// The table of the kernels of this instruction set.

#include "cpu/kernels.h"

#include "cpu/isa/activation.h"
#include "cpu/isa/fold.h"
#include "cpu/isa/ops.h"

#define EFFKERNELS_NAME_OF(isa) #isa
#define EFFKERNELS_NAME(isa) EFFKERNELS_NAME_OF(isa)

namespace effkernels::cpu::EFFKERNELS_ISA {
namespace {

void exponential_of(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec some[1] = {load_up_to(x + i, static_cast<int>(smaller<int64_t>(kLanes, count - i)))};
    some[0] = bounded_exponent(broadcast(0.0f) - some[0]);
    exponential_of_minus(some, 0.0f);
    store_up_to(y + i, some[0], static_cast<int>(smaller<int64_t>(kLanes, count - i)));
  }
}

}  // namespace

#define EFFKERNELS_ADDRESS_OF(op, Args) &op,
extern const Kernels kKernels;
constinit const Kernels kKernels{EFFKERNELS_NAME(EFFKERNELS_ISA),
                                 EFFKERNELS_FOR_EACH_OP(EFFKERNELS_ADDRESS_OF) exponential_of};

}  // namespace effkernels::cpu::EFFKERNELS_ISA
