// Directories on the way to what a command writes.
#pragma once

#include <string>

namespace tessera {

// Makes the directory and those above it, and says on standard error when it was not there: a mistyped path should not
// go unseen. Throws IoError, naming `what` is to be written, when it cannot be made or written to.
void make_output_directory(const std::string& directory, const std::string& what);

}  // namespace tessera
