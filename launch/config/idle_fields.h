// Fields that a user has set and that do nothing in the run that they are set for: said, so that nobody waits for them.
#pragma once

#include <string>
#include <vector>

namespace tessera {

class RunConfig;  // launch/run.proto

// One line for each: its path and value, and why nothing reads it. given: the config as it was read, in which only what
// the user set is set; resolved: the same after resolve(). A field that has its default is no worth a word.
std::vector<std::string> idle_fields(const RunConfig& given, const RunConfig& resolved);

}  // namespace tessera
