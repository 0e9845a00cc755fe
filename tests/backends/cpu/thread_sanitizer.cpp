// Runs every op of every instruction set without torch: one caller on one thread, one caller on several,
// several callers at once; on new threads for each step, and by with_crew, whose steps are tested by
// themselves, too. Compiled with ThreadSanitizer by test_thread_sanitizer.py, for Arm by test_arm.py.
//
// thread_sanitizer          runs everything; the last line is "ok", or names the results that differ
// thread_sanitizer race     makes a data race, which the sanitizer must find

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/runtime/crew.h"
#include "cpu/runtime/instruction_sets.h"
#include "cpu/runtime/processor.h"
#include "plain_threads.h"

namespace {

using namespace effkernels;
using namespace effkernels::cpu;
using Floats = std::vector<float>;

// Makes the same numbers between -1 and 1 each time, and owns them for the whole run.
class Numbers {
 public:
  const float* take(int64_t count) {
    Floats made(static_cast<size_t>(count));
    for (float& x : made) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      x = static_cast<float>(static_cast<int32_t>(state_ >> 32)) / 2147483648.0f;
    }
    kept_.push_back(std::make_unique<Floats>(std::move(made)));
    return kept_.back()->data();
  }
  // As elements of this type: the upper halves of the floats, where they are bfloat16.
  const void* take(int64_t count, Dtype dtype) {
    const float* floats = take(count);
    if (dtype == Dtype::kFloat) return floats;
    auto* halves = reinterpret_cast<BFloat16*>(kept_.back()->data());
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, floats + i, sizeof bits);
      const BFloat16 upper{static_cast<uint16_t>(bits >> 16)};
      std::memcpy(halves + i, &upper, sizeof upper);
    }
    return halves;
  }
  Parameters parameters(int64_t count) { return {take(count), Dtype::kFloat}; }

  // Variances are squares.
  Norm norm(int channels) {
    Norm norm{{},  parameters(channels), parameters(channels), parameters(channels), parameters(channels),
              0.5f};
    for (float& variance : *kept_.back()) variance *= variance;
    return norm;
  }

 private:
  uint64_t state_ = 1;
  std::vector<std::unique_ptr<Floats>> kept_;
};

// Calls an op; returns everything that it writes.
using Call = std::function<Floats(const Threads& threads)>;

Floats widened(const Floats& written) {
  Floats wide(written.size());
  for (size_t i = 0; i < wide.size(); ++i) {
    BFloat16 x;
    std::memcpy(&x, reinterpret_cast<const char*>(written.data()) + i * sizeof x, sizeof x);
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    std::memcpy(&wide[i], &bits, sizeof bits);
  }
  return wide;
}

// Workspace and results are filled with NaN first. `place` sets where results are written.
template <class Args>
Call call(const Op<Args>* const Kernels::* op, Args args, int64_t results,
          void (*place)(Args& args, float* results)) {
  return [=](const Threads& threads) {
    constexpr float kNothing = std::numeric_limits<float>::quiet_NaN();
    Floats written(static_cast<size_t>(results), kNothing);
    Args mine = args;
    place(mine, written.data());
    run_op(op, mine, threads);
    if constexpr (requires { mine.dtype; }) {
      if (mine.dtype == Dtype::kBFloat16) return widened(written);
    }
    return written;
  };
}

Call depthwise(Numbers& n, Shape in, Shape out, Window window, bool pooled) {
  DepthwiseConvBnActArgs args{};
  args.in = in, args.out = out, args.window = window, args.dtype = Dtype::kFloat;
  args.x = n.take(in.images * in.pixels() * in.channels);
  args.weight = n.take(static_cast<int64_t>(in.channels) * window.kernel_h * window.kernel_w);
  args.norm = n.norm(in.channels), args.activation = Activation::kSilu;
  const int64_t means = pooled ? out.images * out.channels : 0;
  const int64_t results = out.images * out.pixels() * out.channels;
  if (!pooled)
    return call<DepthwiseConvBnActArgs>(&Kernels::depthwise_conv_bn_act, args, results,
                                        [](auto& a, float* y) { a.y = y; });
  return call<DepthwiseConvBnActArgs>(&Kernels::depthwise_conv_bn_act, args, results + means,
                                      [](auto& a, float* y) {
                                        a.mean = y;
                                        a.y = y + a.out.images * a.out.channels;
                                      });
}

Call convolution(Numbers& n, Shape in, Shape out, Window window) {
  ConvBnActArgs args{};
  args.in = in, args.out = out, args.window = window, args.dtype = Dtype::kFloat;
  args.x = n.take(in.images * in.pixels() * in.channels);
  const int64_t taps = static_cast<int64_t>(window.kernel_h) * window.kernel_w;
  args.weight = n.take(out.channels * in.channels * taps);
  const int64_t strides[] = {in.channels * taps, taps, window.kernel_w, 1};
  std::memcpy(args.weight_strides, strides, sizeof strides);
  args.norm = n.norm(out.channels), args.activation = Activation::kSilu;
  const int64_t results = out.images * out.pixels() * out.channels;
  return call<ConvBnActArgs>(&Kernels::conv_bn_act, args, results, [](auto& a, float* y) { a.y = y; });
}

Call pointwise(Numbers& n, Shape in, int out_channels, bool gated, bool mean_only,
               Dtype dtype = Dtype::kFloat) {
  PointwiseConvBnActArgs args{};
  args.in = in, args.out_channels = out_channels, args.dtype = dtype;
  args.x = n.take(in.images * in.pixels() * in.channels, dtype);
  args.weight = n.take(static_cast<int64_t>(out_channels) * in.channels, dtype);
  args.norm = n.norm(out_channels), args.activation = Activation::kHardswish;
  if (gated) args.gate = n.take(in.images * in.channels);
  if (mean_only) {
    return call<PointwiseConvBnActArgs>(&Kernels::pointwise_conv_bn_act, args, in.images * out_channels,
                                        [](auto& a, float* y) { a.mean = y; });
  }
  const int64_t results = in.images * in.pixels() * out_channels;
  args.residual = n.take(results, dtype);
  return call<PointwiseConvBnActArgs>(&Kernels::pointwise_conv_bn_act, args, results,
                                      [](auto& a, float* y) { a.y = y; });
}

SqueezeExciteGateArgs args_of_gate(Numbers& n, int64_t images, int channels, int squeezed) {
  SqueezeExciteGateArgs args{};
  args.images = images, args.channels = channels, args.squeezed = squeezed;
  const int64_t count = static_cast<int64_t>(channels) * squeezed;
  args.reduce_weight = n.parameters(count), args.reduce_bias = n.parameters(squeezed);
  args.expand_weight = n.parameters(count), args.expand_bias = n.parameters(channels);
  args.activation = Activation::kSilu;
  return args;
}

Call gate(Numbers& n, int64_t images, int channels, int squeezed) {
  SqueezeExciteGateArgs args = args_of_gate(n, images, channels, squeezed);
  args.pooled = n.take(images * channels);
  return call<SqueezeExciteGateArgs>(&Kernels::squeeze_excite_gate, args, images * channels,
                                     [](auto& a, float* y) { a.gate = y; });
}

Call squeeze_excite(Numbers& n, Shape in, int squeezed) {
  SqueezeExciteArgs args{};
  args.in = in, args.dtype = Dtype::kFloat;
  args.x = n.take(in.images * in.pixels() * in.channels);
  args.gate = args_of_gate(n, in.images, in.channels, squeezed);
  const int64_t results = in.images * in.pixels() * in.channels;
  return call<SqueezeExciteArgs>(&Kernels::squeeze_excite, args, results, [](auto& a, float* y) { a.y = y; });
}

Call mbconv(Numbers& n, Shape in, Shape out, Window window, int expanded, int squeezed,
            Dtype dtype = Dtype::kFloat) {
  MbconvArgs args{};
  args.in = in, args.out = out, args.window = window, args.dtype = dtype;
  args.x = n.take(in.images * in.pixels() * in.channels, dtype);
  args.expanded = expanded;
  if (expanded != in.channels) {
    args.expand_weight = n.take(static_cast<int64_t>(expanded) * in.channels, dtype);
    args.expand_norm = n.norm(expanded);
  }
  const int64_t taps = static_cast<int64_t>(window.kernel_h) * window.kernel_w;
  args.depthwise_weight = n.take(expanded * taps, dtype);
  args.depthwise_norm = n.norm(expanded);
  if (squeezed > 0) args.gate = args_of_gate(n, in.images, expanded, squeezed);
  args.project_weight = n.take(static_cast<int64_t>(out.channels) * expanded, dtype);
  args.project_norm = n.norm(out.channels);
  args.activation = Activation::kSilu;
  const int64_t results = out.images * out.pixels() * out.channels;
  return call<MbconvArgs>(&Kernels::mbconv, args, results, [](auto& a, float* y) { a.y = y; });
}

struct Named {
  std::string name;
  Call run;
  // How far results of other numbers of threads may be, as a part of the largest: the work, and so the order
  // of some sums, is split by it. Bfloat16 may be rounded the other way.
  float tolerance = 1e-4f;
};

std::vector<Named> all_calls(Numbers& n) {
  const Window same{3, 3, 1, 1, 1, 1, 1, 1}, half{5, 5, 2, 2, 2, 2, 1, 1}, dilated{3, 2, 1, 1, 0, 0, 2, 3};
  constexpr Dtype kBFloat16 = Dtype::kBFloat16;
  constexpr float kRounding = 1e-2f;
  return {
      {"depthwise", depthwise(n, {2, 30, 20, 37}, {2, 30, 20, 37}, same, false)},
      {"depthwise, pooled", depthwise(n, {1, 40, 21, 150}, {1, 20, 11, 150}, half, true)},
      {"depthwise, dilated", depthwise(n, {1, 30, 20, 9}, {1, 26, 17, 9}, dilated, true)},
      {"convolution", convolution(n, {2, 21, 20, 3}, {2, 11, 10, 70}, half)},
      {"convolution, dilated", convolution(n, {1, 21, 20, 5}, {1, 17, 17, 20}, dilated)},
      {"pointwise", pointwise(n, {1, 40, 40, 30}, 70, false, false)},
      {"pointwise, rows gated", pointwise(n, {5, 7, 7, 60}, 33, true, false)},
      {"pointwise, weights gated", pointwise(n, {3, 12, 12, 30}, 33, true, false)},
      {"pointwise, groups", pointwise(n, {1, 31, 40, 520}, 20, false, false)},
      {"pointwise, mean", pointwise(n, {3, 7, 7, 30}, 200, false, true)},
      {"gate, alone", gate(n, 1, 40, 9)},
      {"gate, shared", gate(n, 3, 900, 60)},
      {"squeeze_excite", squeeze_excite(n, {2, 30, 30, 41}, 7)},
      {"mbconv", mbconv(n, {1, 30, 30, 12}, {1, 30, 30, 12}, same, 72, 5)},
      {"mbconv, buffer moves", mbconv(n, {1, 20, 300, 6}, {1, 10, 150, 8}, half, 36, 5)},
      {"mbconv, groups", mbconv(n, {5, 24, 24, 6}, {5, 24, 24, 10}, same, 200, 8)},
      {"mbconv, small images", mbconv(n, {6, 7, 7, 20}, {6, 4, 4, 30}, half, 120, 8)},
      {"mbconv, no expand, no gate", mbconv(n, {2, 20, 20, 40}, {2, 20, 20, 12}, same, 40, 0)},
      {"pointwise, bfloat16", pointwise(n, {1, 9, 9, 45}, 200, false, false, kBFloat16), kRounding},
      {"pointwise, bfloat16, gated", pointwise(n, {3, 9, 9, 64}, 150, true, false, kBFloat16), kRounding},
      {"mbconv, bfloat16", mbconv(n, {1, 19, 19, 33}, {1, 10, 10, 70}, half, 198, 5, kBFloat16), kRounding},
  };
}

std::atomic<int> wrong{0};

void complain(const std::string& what) {
  std::printf("%s: %s\n", kernels().name, what.c_str());
  ++wrong;
}

bool same_bits(const Floats& a, const Floats& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool close(const Floats& a, const Floats& b, float tolerance) {
  float largest = 0.0f, difference = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return false;
    largest = std::fmax(largest, std::fabs(b[i]));
    difference = std::fmax(difference, std::fabs(a[i] - b[i]));
  }
  return difference <= tolerance * largest;
}

// Whether the calling thread's tile registers hold something that the operating system has to keep.
bool tiles_in_use() {
#if defined(__x86_64__)
  if (!has_tiles()) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return (low >> 18 & 1) != 0;
#else
  return false;
#endif
}

void check(const Named& one) {
  const Floats alone = one.run(plain_threads(1));
  if (!close(alone, alone, 0.0f)) complain(one.name + ": not all of the result is written");
  if (tiles_in_use()) complain(one.name + ": leaves tile registers in use");
  for (const int count : {2, 3, 5}) {
    const Floats together = one.run(plain_threads(count));
    const std::string name = one.name + " on " + std::to_string(count) + " threads";
    if (!close(together, alone, one.tolerance)) complain(name + ": not the result of one thread");
    if (!same_bits(together, one.run(plain_threads(count)))) complain(name + ": another result each time");
    with_crew(plain_threads(count), [&](const Threads& crew) {
      if (!same_bits(together, one.run(crew))) complain(name + " of a crew: another result");
    });
  }
}

// Every call from several callers at once, each with a crew of its own.
void check_callers(const std::vector<Named>& calls) {
  std::vector<Floats> expected;
  for (const Named& one : calls) expected.push_back(one.run(plain_threads(2)));
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (size_t i = 0; i < calls.size(); ++i) {
        // Each caller begins with another call; later they run the same ones.
        const size_t at = (i + caller / 2 * 5) % calls.size();
        with_crew(plain_threads(2), [&](const Threads& crew) {
          if (!same_bits(calls[at].run(crew), expected[at]))
            complain(calls[at].name + ": disturbed by other callers");
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// How often each part of a step was done, and by how many threads.
struct Done {
  std::atomic<int> times[8] = {};
  std::mutex mutex;
  std::set<std::thread::id> threads;
};

// Steps of a crew: every part is done once, whoever does it.
void check_steps(const Threads& crew) {
  for (int step = 0; step < 200; ++step) {
    Done done;
    const int parts = crew.count - step % crew.count;
    const auto body = [](const void* context, int part) {
      Done& noted = *static_cast<Done*>(const_cast<void*>(context));
      ++noted.times[part];
      const std::lock_guard lock(noted.mutex);
      noted.threads.insert(std::this_thread::get_id());
    };
    crew.run(crew.pool, parts, body, &done);
    for (int part = 0; part < 8; ++part) {
      if (done.times[part] != (part < parts ? 1 : 0)) complain("a part of a step was not done once");
    }
    if (done.threads.size() > static_cast<size_t>(crew.count)) complain("a crew has too many threads");
  }
}

// Parts that wait for each other: all threads of a crew take part.
void check_meeting(const Threads& crew) {
  struct Meeting {
    std::atomic<int> arrived{0};
    int count;
  } meeting{{}, crew.count};
  const auto body = [](const void* context, int) {
    Meeting& m = *static_cast<Meeting*>(const_cast<void*>(context));
    for (++m.arrived; m.arrived < m.count;) std::this_thread::yield();
  };
  crew.run(crew.pool, crew.count, body, &meeting);
}

// Calls only the caller, for all of them, as torch does inside of another parallel loop.
void run_alone(void*, int workers, void (*body)(const void* context, int worker), const void* context) {
  for (int worker = 0; worker < workers; ++worker) body(context, worker);
}

void check_crew() {
  for (const int count : {2, 5, 5, 3, 2}) {
    with_crew(plain_threads(count), [](const Threads& crew) {
      check_steps(crew);
      check_meeting(crew);
      check_steps(crew);
    });
  }
  int calls = 0;
  with_crew({3, run_alone}, [&](const Threads& crew) {
    check_steps(crew);
    ++calls;
  });
  if (calls != 1) complain("a crew of one began another number of times than once");
  try {
    with_crew(plain_threads(3), [](const Threads&) { throw 1; });
    complain("an error of a crew's work is lost");
  } catch (int) {
  }
}

int make_a_race() {
  static int counter = 0;
  run_on_threads(nullptr, 4, [](const void*, int worker) { counter += worker; }, nullptr);
  std::printf("counted %d\n", counter);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "race") return make_a_race();
  Numbers numbers;
  const std::vector<Named> calls = all_calls(numbers);
  check_crew();
  for (const std::string& name : usable_instruction_sets()) {
    use_instruction_set(name);
    for (const Named& one : calls) check(one);
    check_callers(calls);
    std::printf("%s: %zu calls\n", name.c_str(), calls.size());
  }
  if (wrong == 0) std::printf("ok\n");
  return wrong == 0 ? 0 : 1;
}
