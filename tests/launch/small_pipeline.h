// A small model in F64 with enough blocks for every pipeline, for proofs with ranks as threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {
class RunConfig;  // launch/run.proto
}

namespace tessera::testing {

constexpr int64_t kSteps = 3;

// family: a ModelConfig::Family; fields: of the parallel section, "pp=2".
RunConfig config_of(int family, bool tied, const std::vector<std::string>& fields);

}  // namespace tessera::testing
