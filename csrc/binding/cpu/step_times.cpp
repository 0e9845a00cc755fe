#include "binding/cpu/step_times.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <vector>

#include "binding/cpu/network_clock.h"
#include "cpu/runtime/instruction_sets.h"

namespace effkernels::binding {
namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct StepTicks {
  uint64_t begun = 0, ticks = 0;
  std::vector<cpu::WorkTicks> workers;
};

}  // namespace

// `ticks` and `seconds` of the whole call tell how long a tick is.
struct NetworkTicks {
  int threads = 1;
  uint64_t ticks = 0;
  double seconds = 0.0;
  std::vector<StepTicks> steps;
};

namespace {

struct Recording {
  bool on = false;
  std::deque<NetworkTicks> calls;  // which stay where they are
};

thread_local Recording recording;

// Returns the calls of networks that this thread noted since it was last asked: for each its seconds, its
// threads, and for each step the seconds that it took and those that all threads together spent on each kind
// of work.
pybind11::list record_steps(bool on) {
  pybind11::list calls;
  for (const NetworkTicks& call : recording.calls) {
    const double tick = call.ticks == 0 ? 0.0 : call.seconds / static_cast<double>(call.ticks);
    pybind11::list steps;
    for (const StepTicks& step : call.steps) {
      pybind11::dict work;
      for (int kind = 0; kind < cpu::kWorkKinds; ++kind) {
        uint64_t sum = 0;
        for (const cpu::WorkTicks& worker : step.workers) sum += worker.ticks[kind];
        work[cpu::kWorkNames[kind]] = static_cast<double>(sum) * tick;
      }
      steps.append(pybind11::make_tuple(static_cast<double>(step.ticks) * tick, work));
    }
    calls.append(pybind11::make_tuple(call.seconds, call.threads, steps));
  }
  recording.calls.clear();
  recording.on = on;
  return calls;
}

// The multiply-adds a second of one thread, as products of bfloat16 or of floats may use them: the fastest of
// some milliseconds.
double multiply_add_rate(bool bfloat16) {
  const Dtype dtype = bfloat16 ? Dtype::kBFloat16 : Dtype::kFloat;
  double best = 0.0;
  int64_t rounds = 16;
  for (int good = 0; good < 5;) {
    const double begun = seconds();
    const int64_t done = cpu::kernels().multiply_adds(dtype, rounds);
    const double spent = seconds() - begun;
    if (spent < 1e-3) {
      rounds *= 2;
      continue;
    }
    best = std::max(best, static_cast<double>(done) / spent);
    ++good;
  }
  return best;
}

}  // namespace

NetworkClock::NetworkClock() : call_(recording.on ? &recording.calls.emplace_back() : nullptr) {
  if (call_ == nullptr) return;
  call_->seconds = seconds();
  call_->ticks = cpu::ticks();
}

NetworkClock::~NetworkClock() {
  if (call_ == nullptr) return;
  call_->ticks = cpu::ticks() - call_->ticks;
  call_->seconds = seconds() - call_->seconds;
}

cpu::WorkTicks* NetworkClock::begin(size_t step, int threads) {
  if (call_ == nullptr) return nullptr;
  call_->threads = threads;
  if (call_->steps.size() <= step) call_->steps.resize(step + 1);
  StepTicks& noted = call_->steps[step];
  noted.workers.resize(threads);
  noted.begun = cpu::ticks();
  return noted.workers.data();
}

void NetworkClock::end(size_t step) {
  if (call_ == nullptr) return;
  StepTicks& noted = call_->steps[step];
  noted.ticks += cpu::ticks() - noted.begun;
}

void define_step_times(pybind11::module_& module) {
  module.def(
      "record_steps", &record_steps, pybind11::arg("on"),
      "Begin (on) or end to time the steps of the networks that this thread runs. Returns what was timed "
      "since the last call: for each network (seconds, threads, [(seconds, {work: seconds of all threads}), "
      "...]).");
  module.def("multiply_add_rate", &multiply_add_rate, pybind11::arg("bfloat16"),
             "The multiply-adds a second of one thread, of bfloat16 or of floats.");
}

}  // namespace effkernels::binding
