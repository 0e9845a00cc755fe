#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "binding/common/tensor_states.h"

namespace effkernels::binding {

// Tensors that are kept between calls, so that a call passes a number instead of hundreds of tensors. If they
// are a network's, its steps are kept with them (see network_layout.py).
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
  bool same_kinds() const { return states_.same_kinds(tensors_); }
  // Whether strides and addresses are also as they were; false for sparse and opaque tensors.
  bool same_memory() const { return states_.same_memory(tensors_); }

  // What an op keeps with them: made when it is first asked for, freed with them. All ask for the same type.
  template <class Kept>
  Kept& kept() const {
    const std::lock_guard lock(mutex_);
    if (kept_ == nullptr) kept_ = std::make_shared<Kept>();
    return *static_cast<Kept*>(kept_.get());
  }

 private:
  std::vector<Tensor> tensors_;
  Ints numbers_;
  std::vector<double> eps_;
  TensorStates states_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<void> kept_;
};

// Keeps them in this module, and returns the number by which later calls refer to them.
int64_t hold(std::vector<Tensor> tensors, Ints numbers, std::vector<double> eps);
// What `hold` gave this number to. Calls that still use it keep it alive after its release. Throws where
// there is none.
std::shared_ptr<const Held> held(int64_t number);
void release(int64_t number);

}  // namespace effkernels::binding
