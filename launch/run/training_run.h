// A training run on one rank: what lives as long as the process trains it, whatever its phases are. Where it stands, its
// history of data, its lock, its logs and record, the watchdog, and when it saves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/order/history.h"
#include "launch/measure/peak.h"
#include "launch/metrics/metrics_log.h"
#include "launch/metrics/progress.h"
#include "launch/metrics/tensorboard.h"
#include "launch/process/session.h"
#include "launch/process/watchdog.h"
#include "launch/run/phase.h"
#include "launch/run/recording.h"
#include "launch/run/run_lock.h"
#include "launch/run/saving.h"

namespace tessera {

class RunConfig;
struct CheckpointInfo;

struct TrainOptions {
  std::vector<std::string> allow_change;  // config sections that may differ from the checkpoint's
  Failpoint failpoint = {};
};

class TrainingRun {
 public:
  // config: resolved, and its layout; config must outlive the run. Collective over the world. Takes all memory of its phase and, when the
  // run directory has a valid checkpoint, loads the newest. Throws UsageError when the config differs from the
  // checkpoint's where it must not, and before anything is touched when another process trains in the run directory.
  TrainingRun(const RunConfig& config, const Layout& layout, Session& session, const TrainOptions& options);
  ~TrainingRun();

  // Trains to run.steps of the phase's config. Returns the exit code.
  int run();

  // Ends the phase, and begins another one where the run stands. What the config says of the run itself (its directory,
  // name and seed, checkpoint, logging, watchdog) stays as it was in the first; model and optimizer must be the same.
  // What follows is what a stop and a start with this config would give. config: resolved, and its layout; config must outlive
  // the run. Collective; throws as the constructor.
  void begin_phase(const RunConfig& config, const Layout& layout);

  const RunPosition& position() const { return position_; }
  const DataHistory& history() const { return history_; }

 private:
  void on_rank_zero(FunctionRef<void()> work);  // together(), for work of rank 0 alone
  void lock_directory();
  void resume(const TrainOptions& options);
  void accept(const CheckpointInfo& info, const TrainOptions& options) const;
  void begin();
  void open_directory();
  void write_config();
  void open_record();
  int train();
  void train_step();
  void log_step(const StepMetrics& metrics);
  void evaluate_all();
  void find_peak();      // from the record where it is of the same machine, else by measuring
  SaveInfo save_info();  // of where the run stands; its metrics are on the disk then
  void write_record(bool finished);
  State state();
  State settled_state();  // when nothing that is queued on a device writes it any more
  const RunConfig& config() const { return phase_->config(); }
  std::string checkpoints() const { return directory_ + "/checkpoints"; }

  const RunConfig& first_config_;  // what it says of the run itself holds for all phases
  Session& session_;
  bool speaks_;  // rank 0
  std::shared_ptr<spdlog::logger> console_;
  std::string directory_;
  std::unique_ptr<RunLock> lock_;  // on rank 0
  Watchdog watchdog_;
  RunPosition position_;
  int64_t resumed_from_ = -1;  // step of the checkpoint; -1: fresh
  uint64_t seed_ = 0;          // that the run began with
  DataHistory history_;

  std::unique_ptr<Phase> phase_;
  std::unique_ptr<Saving> saving_;
  std::unique_ptr<MetricsLog> metrics_;             // on rank 0, as the next two
  std::unique_ptr<TensorboardWriter> tensorboard_;  // null where it is not wanted
  std::unique_ptr<Recording> recording_;
  std::unique_ptr<Progress> progress_;
  bool open_ = false;  // the run directory's files; a later phase goes on with those of the first
  Peak peak_;          // that MFU is relative to
};

}  // namespace tessera
