// Saving while training goes on: a thread on each rank writes that rank's files; everything that the ranks must agree
// on is done by the training threads, at step boundaries, on all ranks alike.
//
// The order of things, and where a save may be cut off (checkpoint/format/failpoint.h):
//
//   start()  1  rank 0 makes step-NNNNNNNN.tmp-ID, removing what a save cut off left of it
//            2  every rank's thread writes and fsyncs its shard and index
//   poll()   3  when all are through: rank 0 merges what the ranks tell of their files, writes index.h5 and, last, the
//               manifest; fsyncs the directory
//            4  rank 0 renames the directory to step-NNNNNNNN (the commit point), fsyncs its parent and writes LATEST
//
// After each of them all ranks agree that none failed.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "checkpoint/commit.h"
#include "checkpoint/format/staging.h"
#include "checkpoint/save.h"
#include "checkpoint/sharing.h"
#include "parallel/comm/agreement.h"

namespace tessera {

struct SaverOptions {
  int64_t staging_bytes = 0;  // of the ring, on each rank; 0: the state must stay as it is until all is written
  HostCopy copy = {};         // for state on a device
  Failpoint failpoint = {};
};

class Saver {
 public:
  // Both must outlive the saver.
  Saver(Comm& world, Storage& storage, SaverOptions options);
  // Waits for the thread. What was not published is a leftover, as after a crash.
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Computes who writes what, and takes the staging memory. start() does so by itself when the slices are others than
  // before. Collective.
  void plan(const State& state);

  // Begins to write; none may be in flight. The state must stay as it is until state_may_change() has returned, and
  // its memory where it is. Collective; throws as save() in checkpoint/save.h, and then nothing is in flight.
  void start(const State& state, const SaveInfo& info);

  // Returns when the state may change: see checkpoint/format/staging.h for how long it may take. Not collective.
  void state_may_change() { staging_.hand_over(); }

  // The same on every rank.
  bool in_flight() const { return in_flight_; }
  int64_t step() const { return info_.step; }  // of the save in flight, or of the last one

  // Publishes the save in flight when every rank has written, and returns what it is; nothing when it must go on.
  // Collective; throws as save(), and then nothing is in flight, and older checkpoints are as they were.
  std::optional<Saved> poll();
  // The same, but waits for the writing.
  Saved finish();

  int64_t staging_bytes() const { return staging_.bytes(); }
  int64_t bytes() const { return bytes_; }  // of all ranks' tensors, as planned

 private:
  void write();
  Saved publish();
  std::optional<RankFailure> try_publish();
  [[noreturn]] void give_up(RankFailure failure);
  std::string temporary() const;

  Comm& world_;
  Storage& storage_;
  SaverOptions options_;
  Staging staging_;

  // The plan: what it was computed from, and for this rank's slices.
  std::optional<HeldByRank> held_;
  std::vector<std::vector<Interval>> shares_;
  std::vector<DType> dtypes_;
  std::unique_ptr<ShardLayout> layout_;
  int64_t bytes_ = 0;

  // The save in flight.
  bool in_flight_ = false;
  State state_;  // views
  SaveInfo info_;
  std::vector<Piece> pieces_;
  std::thread thread_;
  std::atomic<bool> written_ = false;
  WrittenShard shard_;          // valid when written_ and no failure_
  std::exception_ptr failure_;  // of this rank's thread
};

}  // namespace tessera
