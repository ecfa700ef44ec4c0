// The training loop of one rank: resume, steps, evaluation, checkpoints, and what is said about them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/order/history.h"
#include "launch/metrics/metrics_log.h"
#include "launch/metrics/progress.h"
#include "launch/metrics/tensorboard.h"
#include "launch/process/session.h"
#include "launch/process/watchdog.h"
#include "launch/run/assembly.h"
#include "launch/run/recording.h"
#include "launch/run/run_lock.h"
#include "launch/run/saving.h"
#include "launch/run/validation.h"
#include "optim/gradient_noise.h"
#include "parallel/pipeline.h"

namespace tessera {

class RunConfig;
class Loader;
struct State;

struct TrainOptions {
  std::vector<std::string> allow_change;  // config fields that may differ from the checkpoint's
  Failpoint failpoint = {};
};

class Trainer {
 public:
  // config: resolved, and its layout. Collective over the world. Takes all memory and, when the run directory has a valid checkpoint,
  // loads the newest. Throws UsageError when the config differs from the checkpoint's where it must not, and before
  // anything is touched when another process trains in the run directory.
  Trainer(const RunConfig& config, const Layout& layout, Session& session, const TrainOptions& options);
  ~Trainer();

  // Trains to run.steps. Returns the exit code.
  int run();

 private:
  // Where the run stands: what the checkpoint's cursors hold.
  struct Position {
    int64_t step = 0;     // done
    int64_t samples = 0;  // given to the model
    int64_t tokens = 0;   // target tokens among them
  };

  void lock_run_directory();
  void open_run_directory();
  void open_record();
  Reducer& measured_reducer();  // the optimizer, with the noise of its gradients measured where that can be
  int train();
  void resume(const TrainOptions& options);
  void say_what_runs();
  void train_step();
  // Where a step's time and bytes went; `before`: the traffic when it began.
  StepMetrics accounted(const StepTimes& times, double seconds, const std::map<std::string, Traffic>& before) const;
  void log_step(const StepMetrics& metrics);
  void evaluate_all();
  SaveInfo save_info();  // of where the run stands; its metrics are on the disk then
  void write_record(bool finished);
  State state();
  State settled_state();  // when nothing that is queued on a device writes it any more
  std::string checkpoints() const { return directory_ + "/checkpoints"; }

  const RunConfig& config_;
  Session& session_;
  bool speaks_;  // rank 0
  std::shared_ptr<spdlog::logger> console_;
  std::string directory_;
  std::unique_ptr<RunLock> lock_;  // on rank 0
  std::unique_ptr<Watchdog> watchdog_;
  Position position_;
  int64_t resumed_from_ = -1;  // step of the checkpoint; -1: fresh
  uint64_t seed_ = 0;          // that the run began with
  DataHistory history_;

  std::unique_ptr<Assembly> parts_;
  std::unique_ptr<Loader> loader_;
  std::vector<ValidationSet> validation_;
  std::unique_ptr<GradientNoise> noise_;  // null where it cannot be measured
  std::unique_ptr<Saving> saving_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<TensorboardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<Recording> recording_;  // on rank 0
  double gemm_peak_ = 0;                  // FLOP/s of all ranks together; 0 until measured, after the first step
  std::unique_ptr<AbandonOnFailure> abandon_on_failure_;  // of parts_
};

}  // namespace tessera
