#pragma once

// Torch's stable ABI. Include this before any other header of torch: it replaces their checks by checks
// that format messages as ours do. Torch's own checks use iostreams (see errors.h), and show where the
// headers were on the machine that built the module.

#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include "binding/common/errors.h"

#undef STD_TORCH_CHECK
#define STD_TORCH_CHECK(condition, ...)                                \
  if (!(condition)) {                                                  \
    ::effkernels::binding::fail("effkernels: torch: ", ##__VA_ARGS__); \
  }
#undef TORCH_ERROR_CODE_CHECK
#define TORCH_ERROR_CODE_CHECK(call)             \
  if ((call) != TORCH_SUCCESS) {                 \
    ::effkernels::binding::fail_in_torch(#call); \
  }
#undef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
