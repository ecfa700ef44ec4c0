// A small model with enough blocks for every pipeline, for proofs with ranks as threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {
class RunConfig;  // launch/run.proto
}

namespace tessera::testing {

constexpr int64_t kSteps = 3;

struct SmallSizes {
  int64_t hidden = 16, layers = 9, heads = 4, kv_heads = 2, ffn = 32, vocab = 37, sequence = 16, batch = 8;
};

// In F64. family: a ModelConfig::Family, GPT2 with as many key-value heads as heads; fields: of the parallel section,
// "pp=2".
RunConfig config_of(int family, bool tied, const std::vector<std::string>& fields, const SmallSizes& sizes = {});

}  // namespace tessera::testing
