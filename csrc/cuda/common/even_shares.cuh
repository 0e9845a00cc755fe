#pragma once

#include "cuda/common/elements.cuh"

namespace effkernels::cuda {

// Units that are shared out evenly, in their order: the first `larger` shares have one more than the others.
struct EvenShares {
  int each, larger;

  EFFKERNELS_HOST_DEVICE static EvenShares of(int units, int shares) {
    return {units / shares, units % shares};
  }
  // The first unit of a share.
  EFFKERNELS_HOST_DEVICE int begin(int share) const { return share * each + smaller(share, larger); }
  // The share that has a unit.
  EFFKERNELS_HOST_DEVICE int share_of(int unit) const {
    const int of_larger = larger * (each + 1);
    return unit < of_larger ? unit / (each + 1) : larger + (unit - of_larger) / each;
  }
};

}  // namespace effkernels::cuda
