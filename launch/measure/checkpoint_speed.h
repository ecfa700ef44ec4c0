// Speed of checkpoints against what the same disk does with plain files of the same bytes, in the same run.
#pragma once

#include <cstdint>
#include <string>

#include "launch/process/session.h"

namespace tessera {

struct CheckpointSpeedOptions {
  int64_t bytes = 0;          // of the state, over all ranks
  int64_t staging_bytes = 0;  // of the ring, on each rank
  std::string directory;      // on the disk in question; what is written there is removed
  int repeats = 5;
};

// Medians over the repeats, on rank 0 of the session's world (elsewhere undefined). Seconds are of the slowest rank;
// reads are cold: the files were dropped from the page cache before.
struct CheckpointSpeed {
  int64_t bytes = 0;            // as it came out
  int64_t staging_bytes = 0;    // of all ranks
  double plain_write = 0;       // write() of 4 MiB each, and fsync, of a file on each rank
  double save = 0;              // until it is published
  double copy_stall = 0;        // asynchronous: start() and state_may_change() one after the other
  double overlapped_stall = 0;  // the same with computing between them, as in a step
  double asynchronous = 0;      // of those, from start() until it is published
  double plain_read = 0;        // pread() of 4 MiB each
  double load = 0;              // into the layout that was saved
  double load_other = 0;        // into slices that begin and end elsewhere, on other ranks
};
CheckpointSpeed measure_checkpoint_speed(Session& session, const CheckpointSpeedOptions& options);

}  // namespace tessera
