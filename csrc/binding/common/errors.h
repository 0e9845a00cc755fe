#pragma once

// Error messages, formatted without iostreams. Those format numbers through tables of the C++ library. A
// module that is linked with its own C++ library (-static-libstdc++) may find the tables of torch's
// library instead, which do not match: the message ends at its first number, or the process crashes.

#include <dlfcn.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace effkernels::binding {

// Text unchanged, integers and enumerators in decimal.
template <class Part>
void append(std::string& message, const Part& part) {
  if constexpr (std::is_convertible_v<const Part&, std::string_view>) {
    message += std::string_view(part);
  } else if constexpr (std::is_enum_v<Part>) {
    message += std::to_string(static_cast<long long>(part));
  } else {
    static_assert(std::is_integral_v<Part>, "messages consist of text and integers");
    message += std::to_string(part);
  }
}

// Throws an exception that becomes a RuntimeError in Python.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string message;
  (append(message, parts), ...);
  throw std::runtime_error(message);
}

// Throws the error of a call of torch's C interface that has failed; `call` is its source text.
[[noreturn]] inline void fail_in_torch(std::string_view call) {
  const std::string_view name = call.substr(0, call.find('('));
  // The reason, from torch 2.13 on; older versions do not give it.
  using What = const char* (*)();
  const auto what = reinterpret_cast<What>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* reason = what == nullptr ? nullptr : what();
  if (reason == nullptr) fail("effkernels: ", name, " of torch failed");
  fail("effkernels: ", name, " of torch failed: ", reason);
}

}  // namespace effkernels::binding
