#include "stacks.h"

#if defined(__x86_64__)

asm(R"(
  .text
  .globl effkernels_switch_stacks
  .hidden effkernels_switch_stacks
  .type effkernels_switch_stacks, @function
effkernels_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size effkernels_switch_stacks, . - effkernels_switch_stacks
)");

#endif
