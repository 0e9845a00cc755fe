#include "cpu/runtime/instruction_sets.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "cpu/runtime/processor.h"

namespace effkernels::cpu {

// Defined by kernels.cpp once for each instruction set. The build lists the instruction sets.
#define EFFKERNELS_DECLARE(isa)  \
  namespace isa {                \
  extern const Kernels kKernels; \
  }
EFFKERNELS_FOR_EACH_ISA(EFFKERNELS_DECLARE)
#undef EFFKERNELS_DECLARE

namespace {

bool processor_has(const std::string& isa) {
#if defined(__x86_64__)
  // The names must be literals. The builtins also ask the operating system: registers that it does not save
  // cannot be used.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == "avx2") return avx2;
  if (isa == "tile_twin") return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == "avx512") return avx512;
  const bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
  if (isa == "avx512bf16") return pairs;
  if (isa == "amx") return pairs && has_tiles() && may_use_tiles();
#endif
  return isa == "baseline" || isa == "neon";
}

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> found;
  const auto add = [&found](const Kernels& kernels) {
    if (processor_has(kernels.name)) found.push_back(&kernels);
  };
#define EFFKERNELS_ADD(isa) add(isa::kKernels);
  EFFKERNELS_FOR_EACH_ISA(EFFKERNELS_ADD)
#undef EFFKERNELS_ADD
#if defined(__x86_64__)
  // Intel's processors multiply pairs in vectors more slowly than twice as many floats (measured on Sapphire
  // Rapids: 1.4 times the time of the same products).
  const auto named = [&found](const char* name) {
    return std::find_if(found.begin(), found.end(),
                        [name](auto* one) { return name == std::string(one->name); });
  };
  const auto pairs = named("avx512bf16"), floats = named("avx512");
  if (__builtin_cpu_is("intel") && pairs != found.end() && floats != found.end())
    std::iter_swap(pairs, floats);
#endif
  return found;
}

std::atomic<const Kernels*>& in_use() {
  static std::atomic<const Kernels*> kernels = usable().back();
  return kernels;
}

}  // namespace

std::vector<std::string> usable_instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable()) names.emplace_back(kernels->name);
  return names;
}

const Kernels& kernels() { return *in_use().load(std::memory_order_relaxed); }

void use_instruction_set(const std::string& name) {
  std::string names;
  for (const Kernels* kernels : usable()) {
    if (name == kernels->name) {
      in_use() = kernels;
      return;
    }
    names += std::string(names.empty() ? "" : ", ") + kernels->name;
  }
  throw std::invalid_argument("no instruction set '" + name + "' here; there are " + names);
}

}  // namespace effkernels::cpu
