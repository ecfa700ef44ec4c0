// What was built, and of which parts.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tessera {

// "0.1.0"
std::string program_version();

// Name and version of Tessera and of each library that it runs with, as a checkpoint's manifest and `doctor` list them:
// the libraries say it themselves, so this is what is loaded, not what was compiled against.
std::vector<std::pair<std::string, std::string>> versions();

}  // namespace tessera
