// A small config of the same shape as a large one, for proofs that run in seconds.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace tessera {

class RunConfig;  // launch/run.proto

// What is kept: family, grouping of heads, ties, windows, microbatches of several samples, documents, the optimizer.
// What is cut: widths, layers, vocabulary, sequences and batch, to the least that every one of the layouts (configs
// that differ in their parallel section) can divide and that still fills its pipeline. Not resolved.
RunConfig shrunk(const RunConfig& config, std::span<const RunConfig> layouts);

// What shrunk() changed, one line a field: "model.hidden_size 4096 -> 64".
std::vector<std::string> changes(const RunConfig& before, const RunConfig& after);

// What both have in common of what rules between fields read, and what the proof is about: "2 query heads for each
// key-value head".
std::vector<std::string> kept(const RunConfig& before, const RunConfig& after);

// parallel.context_exchange for `after` blocks instead of `before`: each has that of the block at its place.
std::string stretched_exchange(const std::string& exchange, int before, int after);

}  // namespace tessera
