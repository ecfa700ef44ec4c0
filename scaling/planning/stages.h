// The pipeline stages of one rank of a layout, and what its optimizer is told: made here for the run, which then gives
// them memory, and for the planner, which asks what they would take.
#pragma once

#include <memory>
#include <vector>

#include "model/transformer.h"
#include "optim/zero.h"
#include "scaling/planning/layout.h"

namespace tessera {

struct StageOptions {
  Device device = Device::Cpu;
  bool graphs = false;  // run.cuda_graphs
};

// In ascending order, without memory. Their parameters know how many ranks share them out (share_out).
std::vector<std::unique_ptr<Transformer>> make_stages(const Layout& layout, int rank, const StageOptions& options);

// Of all of them, in the model's order.
Parameters parameters_of(const std::vector<std::unique_ptr<Transformer>>& stages);

ZeroOptimizer::Options optimizer_options(const Layout& layout, int rank, uint64_t seed = 1);

}  // namespace tessera
