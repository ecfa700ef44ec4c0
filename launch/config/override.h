// `--set path=value` and `--set path+=value`.
//
//   model.hidden_size=512                   any scalar; strings need no quotes, enum values and booleans any letter case
//   data.train=shards/web                   the list becomes this one source; a value without braces is its path
//   data.train+=shards/code                 one source more
//   data.train+={path: "x" weight: 2}       one source more, as a message in text format
//   data.train=[{path: "x"}, {path: "y"}]   a whole list
//   data.train[1].weight=3                  a field of an element that the list has
//   optimizer={beta2: 0.98}                 a section is replaced, not merged
#pragma once

#include <string>

#include "launch/config/problems.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Applies one override; the origin of what it sets becomes "--set TEXT". Mistakes go to problems, and then config is as
// it was.
void apply_override(const std::string& text, RunConfig& config, Origins& origins, Problems& problems);

}  // namespace tessera
