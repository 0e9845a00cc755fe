// The Python module effkernels._C: what this build is, and what this processor can do. Sees no torch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_record.h"  // generated: the record of the build
#include "cpu/instruction_sets.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info = py::module_::import("json").attr("loads")(kBuildRecord);
  info["compiled_with"] = __VERSION__;
  info["cplusplus"] = static_cast<long>(__cplusplus);
  py::dict instruction_sets;
  instruction_sets["compiled"] = effkernels::cpu::compiled_instruction_sets();
  instruction_sets["detected"] = effkernels::cpu::detected_instruction_sets();
  info["instruction_sets"] = instruction_sets;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build information of effkernels.";
  module.def("build_info", &build_info,
             "The record of the build, with the instruction sets compiled in and those of this processor.");
}
