// Which blocks belong to which pipeline stage.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

// A stage's part of the model: blocks [first_block, last_block). The first stage has the embedding too, the last one
// the final norm and the head.
struct StagePart {
  int stage = 0;   // its number
  int stages = 1;  // how many there are
  int first_block = 0;
  int last_block = 0;

  bool first() const { return stage == 0; }
  bool last() const { return stage == stages - 1; }
  int blocks() const { return last_block - first_block; }
};

// What running parts of the model takes, in one unit of any kind (FLOPs, seconds), forward and backward together.
struct ModelCost {
  double embedding = 0;
  std::vector<double> blocks = {};  // each
  double head = 0;

  double sum() const;
};

// Stages of at least one block each, such that the costliest takes as little as possible; among those, the ones with
// the least sum of squares; then the ones whose later stages are larger (the first ranks hold the most microbatches).
// Throws UsageError when there are fewer blocks than stages.
std::vector<StagePart> balance_stages(int stages, const ModelCost& cost);

// Stages of the given numbers of blocks. Throws UsageError when one is below 1 or the sum is not `blocks`.
std::vector<StagePart> stages_of(int blocks, std::span<const int> blocks_of_stage);

}  // namespace tessera
