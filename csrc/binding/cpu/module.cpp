// The Python module effkernels._C: information about this build and this processor. Importing it also
// registers the operators of binding/cpu with torch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_record.h"  // generated: the record of the build
#include "cpu/runtime/instruction_sets.h"
#include "cpu/runtime/processor.h"
#include "network_layout.h"  // generated: the layout of networks

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info = py::module_::import("json").attr("loads")(kBuildRecord);
  info["compiled_with"] = __VERSION__;
  info["cplusplus"] = static_cast<long>(__cplusplus);
  py::dict instruction_sets;
  instruction_sets["compiled"] = effkernels::cpu::compiled_instruction_sets();
  instruction_sets["detected"] = effkernels::cpu::detected_instruction_sets();
  instruction_sets["kernels"] = effkernels::cpu::usable_instruction_sets();
  instruction_sets["in_use"] = effkernels::cpu::kernels().name;
  info["instruction_sets"] = instruction_sets;
  return info;
}

// The kernels' exponential function, applied to each float.
std::vector<float> exponential(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  effkernels::cpu::kernels().exponential(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build information of effkernels, and its CPU kernels.";
  module.def("build_info", &build_info,
             "The record of the build, with the instruction sets compiled in and those of this processor.");
  module.def("use_instruction_set", &effkernels::cpu::use_instruction_set, pybind11::arg("name"),
             "Run the kernels of another instruction set from now on, in all threads. ValueError if it is "
             "not here.");
  module.def(
      "network_layout", [] { return effkernels::binding::layout::kFingerprint; },
      "The fingerprint of the layout of networks that this build reads.");
  module.def("exponential", &exponential, pybind11::arg("x"), "The kernels' e^x, for tests.");
}
