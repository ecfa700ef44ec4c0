#include "tensor/check.h"

namespace tessera::detail {

void check_failed(const char* file, int line, const char* expression, const std::string& message) {
  std::ostringstream text;
  text << file << ":" << line << ": internal error: " << expression << " does not hold";
  if (!message.empty()) text << " (" << message << ")";
  throw InternalError(text.str());
}

}  // namespace tessera::detail
