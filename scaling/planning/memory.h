// The memory of a rank, to the byte, before any of it is taken: what a run prints when it begins, and what it then
// allocates. Every number is the statement of the code that takes the memory, asked of stages that have none.
//
// What libraries hold (oneDNN's and cuBLAS's scratch, NCCL, MPI, CUDA's context, generated kernels) is not here: it is
// known once they run, and the run prints it as lines of its own. Nor is the staging of checkpoints on the host, which
// follows from who writes which rows and is at most checkpoint.staging_mib.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "scaling/planning/layout.h"
#include "scaling/planning/stages.h"
#include "tensor/context/target.h"

namespace tessera {

// Bytes of one rank by category.
struct MemoryLine {
  std::string category;
  int64_t bytes = 0;
  Device device = Device::Cpu;  // where they lie
};

// What the memory of a rank depends on beside its layout.
struct MemoryRequest {
  Target target;             // of the rank
  bool graphs = false;       // run.cuda_graphs
  int validation_sets = 0;   // each has a pipeline of its own, with messages and dealt tokens
  int64_t loader_bytes = 0;  // one of them a training source and one each validation set: Loader::bytes
};

// Lines in the order of the start-up table. All categories are there, also those of 0 bytes, but for what only a GPU
// has. stages: make_stages(layout, rank, ...) of the request's device, with or without memory.
std::vector<MemoryLine> memory(const Layout& layout, const std::vector<std::unique_ptr<Transformer>>& stages, int rank,
                               const MemoryRequest& request);
std::vector<MemoryLine> memory(const Layout& layout, int rank, const MemoryRequest& request);

int64_t total_bytes(std::span<const MemoryLine> lines);
int64_t total_bytes(std::span<const MemoryLine> lines, Device device);

// Ranks that take the same memory.
struct RankClass {
  int64_t ranks = 0;
  int first_rank = 0;  // the first of them
  std::vector<MemoryLine> lines;
};

// All ranks of the layout by what they take, the largest total first. Ranks are told apart by their stages and by the
// rows that they own, so the work grows with the number of different statements and not with that of ranks.
std::vector<RankClass> memory_classes(const Layout& layout, const MemoryRequest& request);

}  // namespace tessera
