// A state handed from one layout to another in memory, as a save and a load would by way of the disk.
//
// What a rank keeps is what it would write into a checkpoint (checkpoint/sharing.h): every row of the state is kept by
// one rank, in host memory. So what held the state may be freed before what takes it is made.
#pragma once

#include <vector>

#include "checkpoint/format/staging.h"
#include "checkpoint/sharing.h"
#include "parallel/comm/comm.h"
#include "parallel/state.h"
#include "tensor/memory/buffer.h"

namespace tessera {

class Handover {
 public:
  // Copies this rank's part of the state. copy: how bytes come from a device; empty: the state is host memory.
  // Collective over world, which must outlive the handover.
  Handover(Comm& world, const State& state, const HostCopy& copy = {});

  // Overwrites the slices' data, which is host memory, and the cursors. Collective over the same world. Throws
  // CheckpointError, on every rank alike and before anything is overwritten, naming a tensor that one of the two states
  // lacks, or has in another shape or dtype.
  void into(State& state);

 private:
  // Rows of a tensor, kept by this rank.
  struct Kept {
    Interval rows;
    Tensor data;
  };

  Comm& world_;
  Cursors cursors_;
  HeldByRank kept_by_rank_;  // a rank's in the order of its kept_
  std::vector<Kept> kept_;
  Buffer memory_;
};

}  // namespace tessera
