// A config from protobuf text format, with every mistake located.
#pragma once

#include <string>

#include "launch/config/problems.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Overwrites config with `text`, which came from the file `name`, and notes in origins where each field is. Mistakes go
// to problems as "name:line:column: what, and what was probably meant"; unknown fields do not hide what follows them,
// nor do values of a wrong type that stand on a line of their own.
void parse_config(const std::string& name, const std::string& text, RunConfig& config, Origins& origins,
                  Problems& problems);

}  // namespace tessera
