// Errors and invariants.
//
// What a user or the world did wrong throws a subclass of Error, which carries the exit code that the program ends
// with. A broken invariant of our own throws InternalError through TESSERA_CHECK, with the values that broke it.
// `main` catches both, says which rank and host, and takes the other ranks down.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace tessera {

// Exit codes of the program (128+n for a signal n comes from the shell).
enum class ExitCode : int {
  Done = 0,
  Internal = 1,
  Usage = 2,         // command line or config
  Data = 3,          // data or tokenizer
  NoCheckpoint = 4,  // no valid checkpoint
  Numerical = 17,    // loss or gradient is not finite
  Io = 74,           // reading or writing failed
  Stopped = 75,      // stopped with a checkpoint: start me again
  Watchdog = 86,
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

struct UsageError : Error {
  explicit UsageError(const std::string& message) : Error(ExitCode::Usage, message) {}
};
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ExitCode::Data, message) {}
};
struct CheckpointError : Error {
  explicit CheckpointError(const std::string& message) : Error(ExitCode::NoCheckpoint, message) {}
};
struct NumericalError : Error {
  explicit NumericalError(const std::string& message) : Error(ExitCode::Numerical, message) {}
};
struct IoError : Error {
  explicit IoError(const std::string& message) : Error(ExitCode::Io, message) {}
};
// A GPU has no room for what a run takes: an IoError to which `main` adds what would take less.
struct DeviceMemoryError : IoError {
  using IoError::IoError;
};
struct InternalError : Error {
  explicit InternalError(const std::string& message) : Error(ExitCode::Internal, message) {}
};

namespace detail {

[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& message);

template <class A, class B>
[[noreturn]] void check_failed_values(const char* file, int line, const char* expression, const A& a, const B& b,
                                      const std::string& message) {
  std::ostringstream values;
  values << message << (message.empty() ? "" : ": ") << a << " against " << b;
  check_failed(file, line, expression, values.str());
}

}  // namespace detail
}  // namespace tessera

// TESSERA_CHECK(condition, message): message is a std::string or literal, evaluated only on failure.
#define TESSERA_CHECK(condition, message)                                       \
  do {                                                                          \
    if (!(condition)) [[unlikely]]                                              \
      ::tessera::detail::check_failed(__FILE__, __LINE__, #condition, message); \
  } while (false)

// TESSERA_CHECK_EQ(a, b, message): prints both values on failure; a and b are evaluated once.
#define TESSERA_CHECK_EQ(a, b, message)                                                                        \
  do {                                                                                                         \
    const auto& tessera_a = (a);                                                                               \
    const auto& tessera_b = (b);                                                                               \
    if (!(tessera_a == tessera_b)) [[unlikely]]                                                                \
      ::tessera::detail::check_failed_values(__FILE__, __LINE__, #a " == " #b, tessera_a, tessera_b, message); \
  } while (false)
