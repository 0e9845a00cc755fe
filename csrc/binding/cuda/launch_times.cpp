// effkernels_cuda: time_launches, device_rates. How long the kernels of networks and blocks take, and what
// the device can do.

#include "binding/cuda/launch_times.h"

#include <cmath>
#include <string>
#include <tuple>

#include "binding/common/torch.h"
#include "binding/cuda/launch.h"
#include "binding/cuda/launch_records.h"
#include "cuda/common/device_memory.h"

namespace effkernels::binding {
namespace {

using torch::stable::Tensor;

struct Times {
  int64_t timed = 0;  // a cuda::Timed; 0: runs are not timed
  int64_t hold_up = 0;
  std::string text;
};

thread_local Times own_times;

void append(std::string& text, float milliseconds) {
  text += ' ' + std::to_string(std::llround(1e6 * static_cast<double>(milliseconds)));
}

// Times the runs of this thread from now on: `timed` is a cuda::Timed, or 0 to end; each run begins
// `hold_up` microseconds later. Returns what was timed since the last call. For each run first a line: an
// equals sign; the nanoseconds between two events with nothing between them; those of the whole run; and 1 if
// the host had launched everything before the device began, else 0. Then a line for each kernel, as
// `record_launches` writes it, with its nanoseconds at the end if each was timed.
std::string time_launches(int64_t timed, int64_t hold_up) {
  std::string text = std::move(own_times.text);
  own_times = {timed, hold_up, {}};
  return text;
}

// Of the device of `probe`: bytes a second of its memory; FLOPs a second of products of 16 bits, and of
// float32. 0 where it does not say.
std::tuple<double, double, double> device_rates(const Tensor& probe) {
  const OnDevice device(probe);
  const double memory = 1e6 * cuda::device_memory().memory_rate;
  const cuda::DeviceArithmetic arithmetic = cuda::device_arithmetic();
  return {memory, arithmetic.product_rate, arithmetic.vector_rate};
}

}  // namespace

std::unique_ptr<cuda::LaunchTimer> launch_timer() {
  if (own_times.timed == 0) return nullptr;
  return std::make_unique<cuda::LaunchTimer>(static_cast<cuda::Timed>(own_times.timed), own_times.hold_up);
}

void keep_times(const cuda::RunTimes& times) {
  std::string& text = own_times.text;
  text += '=';
  append(text, times.nothing);
  append(text, times.whole);
  text += times.queued ? " 1\n" : " 0\n";
  for (size_t i = 0; i < times.launches.size(); ++i) {
    append_launch(text, times.launches[i]);
    if (i < times.each.size()) append(text, times.each[i]);
    text += '\n';
  }
}

}  // namespace effkernels::binding

STABLE_TORCH_LIBRARY_FRAGMENT(effkernels_cuda, library) {
  library.def("time_launches(int timed, int hold_up) -> str");
  library.def("device_rates(Tensor probe) -> (float memory, float product, float vector)");
}

// It has no tensors that could select a device.
STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, CompositeExplicitAutograd, library) {
  library.impl("time_launches", TORCH_BOX(&effkernels::binding::time_launches));
}

STABLE_TORCH_LIBRARY_IMPL(effkernels_cuda, EFFKERNELS_DISPATCH_KEY, library) {
  library.impl("device_rates", TORCH_BOX(&effkernels::binding::device_rates));
}
