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
  // Shares that have units of the same run, at most, where runs of `length` units follow each other.
  EFFKERNELS_HOST_DEVICE int most_of_run(int length) const {
    if (larger == 0 && each % length == 0) return 1;
    if (larger == 0 && length % each == 0) return length / each;
    return divide_up(length - 1, each) + 1;
  }
};

}  // namespace effkernels::cuda
