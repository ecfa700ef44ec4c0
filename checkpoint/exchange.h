// Carries out a reading plan: blocks from the disk, checked, into the slices of every rank that wants them.
#pragma once

#include <cstddef>
#include <vector>

#include "checkpoint/reading_plan.h"
#include "parallel/comm/comm.h"
#include "parallel/state.h"

namespace tessera {

class Exchange {
 public:
  // All must outlive the exchange. The one buffer, a block, is allocated when a block is first wanted in part only.
  Exchange(Comm& world, CheckpointReader& reader, State& state) : world_(world), reader_(reader), state_(state) {}

  // Overwrites the slices' bytes. Collective over world. A rank whose disk fails still sends what the others wait for;
  // its error (CheckpointError, IoError) is thrown at the end of a batch of blocks, the same on every rank.
  void run(ReadingPlan& plan);

 private:
  void run_batch(const std::vector<Reading>& batch);
  void receive(const Reading& reading);
  void read_and_send(const Reading& reading);
  std::span<std::byte> place(const Reading& reading);
  Tensor view(std::byte* bytes, const Reading::Delivery& delivery, DType dtype) const;
  std::byte* target(const Reading::Delivery& delivery) const;

  Comm& world_;
  CheckpointReader& reader_;
  State& state_;
  std::exception_ptr failure_;  // of this rank; it reads no more
  std::vector<std::byte> staging_;
  std::vector<Request> requests_;
};

}  // namespace tessera
