#include "cpu/runtime/processor.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace effkernels::cpu {

std::vector<std::string> detected_instruction_sets() {
  std::vector<std::string> found;
  [[maybe_unused]] const auto add = [&found](const char* name, bool there) {
    if (there) found.emplace_back(name);
  };
#if defined(__x86_64__)
  // The names must be literals. The builtins also ask the operating system: registers that it does not save
  // cannot be used.
  __builtin_cpu_init();
  add("sse4.2", __builtin_cpu_supports("sse4.2"));
  add("avx", __builtin_cpu_supports("avx"));
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512dq", __builtin_cpu_supports("avx512dq"));
  add("avx512vl", __builtin_cpu_supports("avx512vl"));
  add("avx512vnni", __builtin_cpu_supports("avx512vnni"));
  add("avx512bf16", __builtin_cpu_supports("avx512bf16"));
#elif defined(__aarch64__)
  add("neon", true);
#if defined(__linux__)
  add("fp16", getauxval(AT_HWCAP) & HWCAP_ASIMDHP);
  add("dotprod", getauxval(AT_HWCAP) & HWCAP_ASIMDDP);
  add("sve", getauxval(AT_HWCAP) & HWCAP_SVE);
#ifdef HWCAP2_BF16
  add("bf16", getauxval(AT_HWCAP2) & HWCAP2_BF16);
#endif
#endif
#endif
  return found;
}

std::vector<std::string> compiled_instruction_sets() {
  std::vector<std::string> found;
#ifdef __SSE2__
  found.emplace_back("sse2");
#endif
#ifdef __SSE4_2__
  found.emplace_back("sse4.2");
#endif
#ifdef __AVX2__
  found.emplace_back("avx2");
#endif
#ifdef __AVX512F__
  found.emplace_back("avx512f");
#endif
#ifdef __ARM_NEON
  found.emplace_back("neon");
#endif
  return found;
}

}  // namespace effkernels::cpu
