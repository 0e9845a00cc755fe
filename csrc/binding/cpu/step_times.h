#pragma once

#include <pybind11/pybind11.h>

namespace effkernels::binding {

// Adds record_steps and multiply_add_rate to the Python module. What they report comes from NetworkClock.
void define_step_times(pybind11::module_& module);

}  // namespace effkernels::binding
