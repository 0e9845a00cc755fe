// effkernels_cuda: record_launches. Notes the kernels that networks and blocks launch, for people.

#include "binding/cuda/launch_records.h"

#include "binding/common/torch.h"

namespace effkernels::binding {
namespace {

struct Records {
  bool on = false;
  std::vector<cuda::LaunchRecord> launches;
};

thread_local Records records;

// Returns what this thread has launched since it was last asked: a line for each kernel.
std::string record_launches(bool on) {
  std::string lines;
  for (const cuda::LaunchRecord& launch : records.launches) {
    append_launch(lines, launch);
    lines += '\n';
  }
  records = {on, {}};
  return lines;
}

}  // namespace

void append_launch(std::string& text, const cuda::LaunchRecord& launch) {
  const cuda::LaunchPurpose& purpose = launch.purpose;
  text += launch.kernel;
  text += purpose.layer[0] == '\0' ? " -" : std::string(" ") + purpose.layer;
  for (const int64_t value :
       {launch.blocks, int64_t{launch.threads}, launch.shared_bytes, int64_t{launch.cluster},
        int64_t{launch.dependent}, int64_t{purpose.part}, int64_t{purpose.parts}, int64_t{purpose.step},
        launch.work.bytes, launch.work.flops}) {
    text += ' ' + std::to_string(value);
  }
}

std::vector<cuda::LaunchRecord>* launch_records() { return records.on ? &records.launches : nullptr; }

}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) { library.def("record_launches(bool on) -> str"); }

// It has no tensors that could select a device.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("record_launches", TORCH_BOX(&effkernels::binding::record_launches));
}
