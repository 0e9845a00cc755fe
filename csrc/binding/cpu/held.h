#pragma once

#include <memory>
#include <vector>

#include "binding/common/arguments.h"

namespace effkernels::binding {

// Tensors that are kept between calls, so that a call need not bring hundreds of them, and a network's steps
// with them (see network_layout.py) where they are for one.
//
// They are the modules' own: what is written into them, or put in the place of their memory, is seen. Calls
// of several threads may read them at once; nothing here changes while they do.
class Held {
 public:
  Held(std::vector<Tensor> tensors, Ints numbers, std::vector<double> eps);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Ints& numbers() const { return numbers_; }
  const std::vector<double>& eps() const { return eps_; }

  // Whether types, devices and shapes are as they were when they were taken.
  bool same_kinds() const;
  // Whether these and the memory, and how it is used, are. Of sparse and opaque tensors nobody can say.
  bool same_memory() const;

 private:
  struct State {
    int32_t type, device_type, device_index;
    int64_t dimensions;
    bool strided;
    const void* data;
    Ints sizes, strides;
  };

  bool same(bool memory) const;

  std::vector<Tensor> tensors_;
  Ints numbers_;
  std::vector<double> eps_;
  std::vector<State> states_;
};

// What `effkernels_cpu::hold` gave this number to. Calls that still use it keep it alive after its release.
// Throws where there is none.
std::shared_ptr<const Held> held(int64_t number);
void release(int64_t number);

}  // namespace effkernels::binding
