// Makes the runs of a plan: `tessera train` as processes, one after another or several at once.
//
// What is done is read from the run directories, never remembered: a sweep that was stopped, killed or extended goes on
// with what is missing. Finished runs are skipped, diverged ones are kept as they are, all others are started, and
// train resumes by itself. DIR/plan/NAME.textproto holds each run's config, DIR/logs/NAME.log what it printed, and
// DIR/trunks/NAME the trunks. A branch begins with hard links to its trunk's checkpoint and the trunk's metrics so far.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scaling/process.h"
#include "scaling/sweep_tasks.h"

namespace tessera {

struct SweepOptions {
  std::vector<std::string> train;  // the command before "train CONFIG"
  int concurrent = 1;
};

class Sweep {
 public:
  // Makes the directory and takes its lock, so that two sweeps cannot make the same runs: UsageError names the file.
  // Throws UsageError when a run that was started had another config than the plan says: which field, both values.
  Sweep(const std::string& directory, std::vector<SweepTask> tasks, SweepOptions options);
  ~Sweep();

  // Starts what can be started, and looks after what runs. Returns whether anything is left to do or wait for.
  bool advance();
  // Ends all processes, which go on from their last checkpoints the next time.
  void stop();

  const std::vector<SweepTask>& tasks() const { return tasks_; }
  // Of what is left, at the speeds seen so far; NaN before there are any.
  double remaining_seconds() const;
  std::string table() const;  // one line a task

 private:
  void take_lock();
  void prepare(SweepTask& task);
  void start(size_t index);
  void ended(size_t index, int code);
  double rate_of(const std::string& size) const;  // FLOP/s; NaN: not known

  std::string directory_;
  std::vector<SweepTask> tasks_;
  SweepOptions options_;
  int lock_ = -1;
  std::map<size_t, std::unique_ptr<Process>> running_;
};

}  // namespace tessera
