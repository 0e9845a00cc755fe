#include "cpu/runtime/processor.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace effkernels::cpu {

bool has_tiles() {
#if defined(__x86_64__)
  // Compilers do not all know these names, so the processor is asked itself.
  constexpr unsigned kTiles = 1u << 24, kBFloat16 = 1u << 22, kSavesState = 1u << 27;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kSavesState) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTiles) == 0 || (d & kBFloat16) == 0) return false;
  // The operating system must save both parts of their state.
  constexpr unsigned kState = 3u << 17;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kState) == kState;
#else
  return false;
#endif
}

bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, since Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

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
  add("amx-bf16", has_tiles());
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
