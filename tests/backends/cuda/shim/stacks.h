#pragma once

// Switches between stacks: each goes on where it was left. POSIX's swapcontext does that too, but took half
// of the time of a small kernel: it calls the operating system to save signals, and AddressSanitizer's
// version of it unpoisons the whole stack.

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace effkernels::host_shim {

#if defined(__x86_64__)

// Where a stack was left: the registers that a function must preserve lie on top of it.
struct Context {
  void** top = nullptr;
};

extern "C" [[gnu::visibility("hidden")]] void effkernels_switch_stacks(Context* left, const Context* next);

inline void switch_stacks(Context& left, const Context& next) { effkernels_switch_stacks(&left, &next); }

// Lets `main`, which must not return, begin on this stack.
inline void begin_on(Context& context, char* stack, size_t bytes, void (*main)()) {
  constexpr int kKept = 6;
  // After `main` is popped the stack pointer is as after a call: a return address below a multiple of 16.
  context.top = reinterpret_cast<void**>(stack + bytes / 16 * 16) - 2 - kKept;
  for (int i = 0; i < kKept; ++i) context.top[i] = nullptr;
  context.top[kKept] = reinterpret_cast<void*>(main);
  context.top[kKept + 1] = nullptr;
}

#else

using Context = ucontext_t;

inline void switch_stacks(Context& left, const Context& next) { swapcontext(&left, &next); }

inline void begin_on(Context& context, char* stack, size_t bytes, void (*main)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, main, 0);
}

#endif

}  // namespace effkernels::host_shim
