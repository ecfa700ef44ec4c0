// A planned sweep as processes to start, and what the disk says about them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "scaling/sweep.h"

namespace tessera {

enum class RunState : uint8_t { Waiting, Running, Finished, Unfinished, Diverged, Failed, Blocked };
const char* name(RunState state);

// What the directory of a run that is to have `steps` steps says.
struct RunProgress {
  RunState state = RunState::Waiting;  // Waiting when there is nothing yet
  int64_t step = 0;
  double loss = 0;     // validation loss of the last step, else the training loss
  double seconds = 0;  // in steps
  double flops = 0;    // 0: not known
};
RunProgress progress_of(const std::string& directory, int64_t steps);

// One process: a run, or a trunk up to one of its stops.
struct SweepTask {
  std::string name;  // of the run, "trunk NAME to STEP"
  std::string size, directory, plan, log;
  std::string config;     // text of its run config
  bool branches = false;  // its schedule is not that of the checkpoint it begins with
  int64_t first_step = 0, steps = 0;
  double flops_per_step = 0;
  int after = -1;     // the task that must be finished before
  std::string trunk;  // directory of the trunk that it branches from, at first_step; "": none
  RunState state = RunState::Waiting;
  RunProgress progress;
  int code = 0;  // of Failed
};

// Trunks in parts, then runs; a task stands behind the one that it waits for. steps_of(config, steps): the config's
// text with run.steps set.
using WithSteps = std::function<std::string(const DescribedRun& run, int64_t steps)>;
std::vector<SweepTask> tasks_of(const SweepPlan& plan, const WithSteps& with_steps);

// The tasks of these runs and of the trunks that they need. Throws UsageError for a name that there is not.
std::vector<SweepTask> only(const std::vector<SweepTask>& tasks, const std::vector<std::string>& names);
// Runs that share a trunk belong together: what one entry of a job array makes. By the names of their runs.
std::vector<std::vector<std::string>> groups_of(const SweepPlan& plan);

}  // namespace tessera
