// A run's config: the file, then the overrides of the command line. Nothing is resolved or checked yet beyond what the
// schema says (launch/config/resolve.h does).
#pragma once

#include <span>
#include <string>

#include "launch/config/problems.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Overwrites config and origins. Throws UsageError listing every mistake in file and overrides.
void read_config(const std::string& file, std::span<const std::string> overrides, RunConfig& config, Origins& origins);

}  // namespace tessera
