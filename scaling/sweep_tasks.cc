#include "scaling/sweep_tasks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// The last whole line of a file that has `key`, among its last few thousand bytes.
nlohmann::json last_line_with(const std::string& path, const char* key) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return nullptr;
  const auto size = static_cast<int64_t>(file.tellg());
  const int64_t begin = std::max<int64_t>(0, size - 8192);
  std::string tail(static_cast<size_t>(size - begin), '\0');
  file.seekg(begin);
  file.read(tail.data(), static_cast<std::streamsize>(tail.size()));
  for (size_t end = tail.rfind('\n'); end != std::string::npos && end > 0; end = tail.rfind('\n', end - 1)) {
    const size_t before = tail.rfind('\n', end - 1);
    const size_t from = before == std::string::npos ? 0 : before + 1;
    const auto line = nlohmann::json::parse(tail.substr(from, end - from), nullptr, /*allow_exceptions=*/false);
    if (line.is_object() && line.contains(key)) return line;
    if (before == std::string::npos) break;
  }
  return nullptr;
}

SweepTask task_for(const SweepPlan& plan, const std::string& name, const std::string& file, const std::string& size,
                   const std::string& directory) {
  SweepTask task;
  task.name = name;
  task.size = size;
  task.directory = directory;
  task.plan = fmt::format("{}/plan/{}.textproto", plan.directory, file);
  task.log = fmt::format("{}/logs/{}.log", plan.directory, file);
  return task;
}

}  // namespace

const char* name(RunState state) {
  switch (state) {
    case RunState::Waiting:
      return "waiting";
    case RunState::Running:
      return "running";
    case RunState::Finished:
      return "finished";
    case RunState::Unfinished:
      return "unfinished";
    case RunState::Diverged:
      return "diverged";
    case RunState::Failed:
      return "failed";
    case RunState::Blocked:
      return "blocked";
  }
  return "?";
}

RunProgress progress_of(const std::string& directory, int64_t steps) {
  RunProgress progress;
  if (!has_record(directory)) return progress;
  TrainingRecord record;
  read_record(directory, record);
  progress.state = record.status() == TrainingRecord::DIVERGED                             ? RunState::Diverged
                   : record.step() >= steps && record.status() == TrainingRecord::FINISHED ? RunState::Finished
                                                                                           : RunState::Unfinished;
  // A trunk that has gone further has been here.
  if (record.step() > steps) progress.state = RunState::Finished;
  progress.step = record.step();
  progress.seconds = record.seconds();
  progress.flops = record.flops().matrices() + record.flops().attention() + record.flops().head();
  if (record.validation_loss_size() > 0)
    progress.loss = record.validation_loss().rbegin()->loss();
  else if (record.curve().loss_size() > 0)
    progress.loss = *record.curve().loss().rbegin();
  if (progress.state != RunState::Unfinished) return progress;
  const nlohmann::json last = last_line_with(directory + "/metrics.jsonl", "loss");
  if (!last.is_null() && last["step"].is_number_integer() && last["step"].get<int64_t>() > progress.step) {
    progress.step = last["step"].get<int64_t>();
    if (last["loss"].is_number()) progress.loss = last["loss"].get<double>();
  }
  return progress;
}

std::vector<SweepTask> tasks_of(const SweepPlan& plan, const WithSteps& with_steps) {
  std::vector<SweepTask> tasks;
  std::map<std::pair<int, int64_t>, int> stops;  // the task that brings a trunk to a stop
  for (size_t t = 0; t < plan.trunks.size(); ++t) {
    const PlannedTrunk& trunk = plan.trunks[t];
    for (size_t i = 0; i < trunk.stops.size(); ++i) {
      const int64_t stop = trunk.stops[i];
      SweepTask task = task_for(plan, fmt::format("trunk {} to {}", trunk.name, stop),
                                fmt::format("trunk-{}-{}", trunk.name, stop), trunk.size, trunk.directory);
      task.config = with_steps(trunk.run, stop);
      task.first_step = i == 0 ? 0 : trunk.stops[i - 1];
      task.steps = stop;
      task.flops_per_step = trunk.run.flops_per_step;
      task.after = i == 0 ? -1 : stops.at({static_cast<int>(t), trunk.stops[i - 1]});
      stops[{static_cast<int>(t), stop}] = static_cast<int>(tasks.size());
      tasks.push_back(std::move(task));
      for (const PlannedRun& run : plan.runs) {
        if (run.trunk != static_cast<int>(t) || run.from != stop) continue;
        SweepTask branch = task_for(plan, run.name, run.name, run.size, run.directory);
        branch.config = with_steps(run.run, run.steps);
        branch.branches = true;
        branch.first_step = run.from;
        branch.steps = run.steps;
        branch.flops_per_step = run.run.flops_per_step;
        branch.after = stops.at({run.trunk, run.from});
        branch.trunk = trunk.directory;
        tasks.push_back(std::move(branch));
      }
    }
  }
  for (const PlannedRun& run : plan.runs) {
    if (run.trunk >= 0) continue;
    SweepTask task = task_for(plan, run.name, run.name, run.size, run.directory);
    task.config = with_steps(run.run, run.steps);
    task.steps = run.steps;
    task.flops_per_step = run.run.flops_per_step;
    tasks.push_back(std::move(task));
  }
  return tasks;
}

std::vector<SweepTask> only(const std::vector<SweepTask>& tasks, const std::vector<std::string>& names) {
  std::set<int> kept;
  for (const std::string& wanted : names) {
    const auto found =
        std::find_if(tasks.begin(), tasks.end(), [&](const SweepTask& task) { return task.name == wanted; });
    if (found == tasks.end()) {
      std::vector<std::string> there;
      for (const SweepTask& task : tasks) there.push_back(task.name);
      throw UsageError(fmt::format("--only {}: the sweep has no such run; it has {}", wanted, fmt::join(there, ", ")));
    }
    for (int i = static_cast<int>(found - tasks.begin()); i >= 0; i = tasks[static_cast<size_t>(i)].after)
      kept.insert(i);
  }
  std::map<int, int> place{{-1, -1}};
  std::vector<SweepTask> chosen;
  for (const int i : kept) {
    place[i] = static_cast<int>(chosen.size());
    chosen.push_back(tasks[static_cast<size_t>(i)]);
  }
  for (SweepTask& task : chosen) task.after = place.at(task.after);
  return chosen;
}

std::vector<std::vector<std::string>> groups_of(const SweepPlan& plan) {
  std::vector<std::vector<std::string>> groups(plan.trunks.size());
  for (const PlannedRun& run : plan.runs) {
    if (run.trunk >= 0)
      groups[static_cast<size_t>(run.trunk)].push_back(run.name);
    else
      groups.push_back({run.name});
  }
  return groups;
}

}  // namespace tessera
