// What a body throws, as text.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>

namespace tessera::testing {

// The message of the error that f throws, which must be an E; else a failure of the test, and an empty text.
template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error was thrown: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace tessera::testing
