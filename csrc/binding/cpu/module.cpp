// The Python module effkernels._C: information about this build and this processor. Importing it also
// registers the operators of binding/cpu with torch.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding/common/held.h"
#include "binding/cpu/objects.h"
#include "binding/cpu/step_times.h"
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

// Python's part in tensors that are held: they are released with it.
class Holder {
 public:
  explicit Holder(int64_t number) : number_(number), held_(effkernels::binding::held(number)) {}
  ~Holder() { effkernels::binding::release(number_); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  int64_t number() const { return number_; }
  bool same_kinds() const { return held_->same_kinds(); }
  bool same_memory() const { return held_->same_memory(); }

 private:
  int64_t number_;
  std::shared_ptr<const effkernels::binding::Held> held_;
};

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
  py::class_<Holder>(module, "Holder", "Keeps what effkernels_cpu::hold took, by its number.")
      .def(py::init<int64_t>(), py::arg("number"))
      .def_property_readonly("number", &Holder::number, "For effkernels_cpu::network_held.")
      .def("same_kinds", &Holder::same_kinds, "Whether types, devices and shapes are as they were.")
      .def("same_memory", &Holder::same_memory, "Whether these are, and memory and strides.");
  module.attr("Objects") = py::reinterpret_steal<py::object>(effkernels::binding::objects_type());
  module.def("exponential", &exponential, pybind11::arg("x"), "The kernels' e^x, for tests.");
  effkernels::binding::define_step_times(module);
}
