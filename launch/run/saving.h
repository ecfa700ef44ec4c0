// When a run saves, and what becomes of its saves: the trainer asks at each step boundary.
//
// A save is due every n steps, every t minutes, when SIGUSR1 came, when a file CHECKPOINT or STOP appears in the run
// directory (it is removed then), when a signal asks to end (launch/process/signals.h), before the wall-clock limit, and
// after the last step. All ranks agree on it, whichever of them noticed. STOP, a signal to end and the limit also end
// the run, with the checkpoint published.
//
// Saves are written while training goes on (checkpoint/saver.h). One that is not through when the next is due is said,
// and training waits for it. What was published is read again and marked VERIFIED; then superfluous older ones go. A
// save that fails is said, and training goes on: older checkpoints are as they were.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/format/storage.h"
#include "checkpoint/reread.h"
#include "checkpoint/retention.h"
#include "checkpoint/saver.h"
#include "launch/process/signals.h"
#include "parallel/reducer.h"

namespace spdlog {
class logger;
}

namespace tessera {

class CheckpointConfig;

class Saving {
 public:
  struct Surroundings {
    Comm& world;
    spdlog::logger& console;
    std::string run_directory;
    Failpoint failpoint;
    // What is to be saved now.
    std::function<State()> state;
    std::function<SaveInfo()> info;  // directory and id are filled in
    HostCopy copy = {};              // for state on a device
    // Whether another process took the run over (launch/run/run_lock.h); asked on rank 0.
    std::function<bool()> lost = {};
  };

  // Takes the staging memory. Collective.
  Saving(const CheckpointConfig& config, Surroundings surroundings);
  ~Saving();

  // The reducer, which waits before it changes the weights until a save has what it needs of them.
  Reducer& guard(Reducer& reducer);

  // To be called after every step, on all ranks: saves when that is due. Returns whether the run is to end now, with a
  // checkpoint of this step; only the last step's and a stop's save are waited for. Throws IoError, on all ranks, when
  // another process took the run over.
  bool step_done(int64_t step, bool last);

  // Waits until nothing is being written or read again.
  void finish();

  int64_t staging_bytes() const { return saver_.staging_bytes(); }
  int64_t saved_step() const { return saved_step_; }        // newest step that this run published; -1: none
  const std::string& save_error() const { return error_; }  // why the newest save that failed did

 private:
  using Clock = std::chrono::steady_clock;

  struct Due {
    bool save = false;
    std::string stop;  // who asks to end the run; empty: nobody
  };

  Due agree(int64_t step, bool last);
  bool take_file(const char* name);
  bool limit_is_near();
  void begin(int64_t step);
  void poll(bool wait);
  void published(const Saved& saved);
  void failed(int64_t step, const std::string& why);
  void read_next();
  void reread_done(const Reread& reread);

  const CheckpointConfig& config_;
  Surroundings around_;
  std::string directory_;
  SignalRequests signals_;
  PosixStorage storage_;
  Saver saver_;
  Rereader rereader_;
  std::unique_ptr<Reducer> guard_;

  std::deque<std::string> unread_;  // published and not read again yet
  Clock::time_point start_, last_step_, last_begun_;
  Clock::time_point last_signal_;  // that all ranks agreed on
  double longest_step_ = 0;        // seconds
  double longest_save_ = 0;        // from its begin until it was published
  int64_t saved_step_ = -1;
  std::string error_;
};

}  // namespace tessera
