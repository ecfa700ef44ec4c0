#include "scaling/sweep_run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "checkpoint/format/names.h"
#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr int kNumericalFailure = static_cast<int>(ExitCode::Numerical);

// The lines of a config's text that say what is learnt, each with its section.
std::vector<std::string> learning_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  std::string section;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != ' ' && line[0] != '}') section = line.substr(0, line.find(' '));
    const bool learns = section == "model" || section == "data" || section == "optimizer" || section == "lr_schedule";
    if (learns) lines.push_back(section + ": " + line);
  }
  return lines;
}

void check_same(const SweepTask& task) {
  if (!fs::exists(task.plan) || progress_of(task.directory, task.steps).state == RunState::Waiting) return;
  const std::vector<std::string> before = learning_lines(read_file(task.plan)), now = learning_lines(task.config);
  const auto [a, b] = std::mismatch(before.begin(), before.end(), now.begin(), now.end());
  if (a == before.end() && b == now.end()) return;
  throw UsageError(
      fmt::format("{} was begun with \"{}\", and the sweep says \"{}\" now; give the run another name "
                  "(size, variant), or remove {} to make it anew",
                  task.name, a == before.end() ? "(nothing)" : *a, b == now.end() ? "(nothing)" : *b, task.directory));
}

bool settled(RunState state) {
  return state == RunState::Finished || state == RunState::Diverged || state == RunState::Failed ||
         state == RunState::Blocked;
}

// The branch begins where its trunk stands now. Does nothing when it has begun.
void branch_off(const SweepTask& task) {
  const std::string checkpoints = task.directory + "/checkpoints";
  const std::string to = join(checkpoints, step_name(task.first_step));
  const std::string from = join(task.trunk + "/checkpoints", step_name(task.first_step));
  if (progress_of(task.directory, task.steps).state != RunState::Waiting || fs::exists(to)) return;
  if (!fs::exists(from))
    throw IoError(
        fmt::format("{} branches off at step {} of its trunk, and {} is gone; remove {} to train the trunk "
                    "again",
                    task.name, task.first_step, from, task.trunk));
  fs::create_directories(checkpoints);
  fs::copy_file(task.trunk + "/metrics.jsonl", task.directory + "/metrics.jsonl", fs::copy_options::overwrite_existing);
  const std::string beside = to + ".linking";
  fs::remove_all(beside);
  fs::copy(from, beside, fs::copy_options::recursive | fs::copy_options::create_hard_links);
  fs::rename(beside, to);
}

}  // namespace

Sweep::Sweep(const std::string& directory, std::vector<SweepTask> tasks, SweepOptions options)
    : directory_(directory), tasks_(std::move(tasks)), options_(std::move(options)) {
  fs::create_directories(directory_ + "/plan");
  fs::create_directories(directory_ + "/logs");
  take_lock();
  for (const SweepTask& task : tasks_) check_same(task);
  for (SweepTask& task : tasks_) {
    replace_file(task.plan, task.config);
    task.progress = progress_of(task.directory, task.steps);
    if (settled(task.progress.state)) task.state = task.progress.state;
  }
}

Sweep::~Sweep() {
  running_.clear();
  if (lock_ >= 0) ::close(lock_);
}

// The parts of a job array work in one directory, so the lock is of the set of runs: the first one's name.
void Sweep::take_lock() {
  const std::string path =
      fmt::format("{}/plan/{}.lock", directory_, tasks_.empty() ? "sweep" : base_name(tasks_[0].plan));
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw IoError(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0)
    throw UsageError(fmt::format("another sweep is making these runs (it holds {}): wait for it, or end it", path));
}

void Sweep::start(size_t index) {
  SweepTask& task = tasks_[index];
  if (!task.trunk.empty()) branch_off(task);
  std::vector<std::string> command = options_.train;
  command.insert(command.end(), {"train", task.plan});
  if (task.branches) command.insert(command.end(), {"--allow-change", "lr_schedule"});
  running_[index] = std::make_unique<Process>(command, task.log);
  task.state = RunState::Running;
}

void Sweep::ended(size_t index, int code) {
  SweepTask& task = tasks_[index];
  task.code = code;
  task.progress = progress_of(task.directory, task.steps);
  const bool done = code == 0 && task.progress.state == RunState::Finished;
  task.state = done                                                                     ? RunState::Finished
               : code == kNumericalFailure && task.progress.state == RunState::Diverged ? RunState::Diverged
               : code == static_cast<int>(ExitCode::Stopped)                            ? RunState::Unfinished
                                                                                        : RunState::Failed;
  // Before the trunk goes on and its older checkpoints go.
  if (task.state != RunState::Finished) return;
  for (const SweepTask& other : tasks_)
    if (other.after == static_cast<int>(index) && !other.trunk.empty()) branch_off(other);
}

bool Sweep::advance() {
  for (auto it = running_.begin(); it != running_.end();) {
    const std::optional<int> code = it->second->poll();
    if (code) {
      ended(it->first, *code);
      it = running_.erase(it);
    } else {
      SweepTask& task = tasks_[it->first];
      task.progress = progress_of(task.directory, task.steps);
      ++it;
    }
  }
  bool left = !running_.empty();
  for (size_t i = 0; i < tasks_.size(); ++i) {
    SweepTask& task = tasks_[i];
    if (task.state != RunState::Waiting) continue;
    const RunState before = task.after < 0 ? RunState::Finished : tasks_[static_cast<size_t>(task.after)].state;
    if (before == RunState::Finished && static_cast<int>(running_.size()) < options_.concurrent) {
      start(i);
      left = true;
    } else if (before != RunState::Finished && (settled(before) || before == RunState::Unfinished)) {
      task.state = RunState::Blocked;
    } else {
      left = true;
    }
  }
  return left;
}

void Sweep::stop() {
  for (auto& [index, process] : running_) process->signal(SIGTERM);
  for (auto& [index, process] : running_) {
    process->wait();
    tasks_[index].state = RunState::Unfinished;
  }
  running_.clear();
}

double Sweep::rate_of(const std::string& size) const {
  double flops = 0, seconds = 0, all_flops = 0, all_seconds = 0;
  for (const SweepTask& task : tasks_) {
    if (!(task.progress.flops > 0 && task.progress.seconds > 0)) continue;
    all_flops += task.progress.flops;
    all_seconds += task.progress.seconds;
    if (task.size != size) continue;
    flops += task.progress.flops;
    seconds += task.progress.seconds;
  }
  return seconds > 0 ? flops / seconds : all_seconds > 0 ? all_flops / all_seconds : std::nan("");
}

double Sweep::remaining_seconds() const {
  double seconds = 0, longest = 0;
  for (const SweepTask& task : tasks_) {
    if (settled(task.state)) continue;
    const auto steps = static_cast<double>(task.steps - std::max(task.first_step, task.progress.step));
    const double of_task = std::max(0.0, steps) * task.flops_per_step / rate_of(task.size);
    seconds += of_task;
    longest = std::max(longest, of_task);
  }
  return std::isnan(seconds) ? seconds : std::max(longest, seconds / options_.concurrent);
}

std::string Sweep::table() const {
  size_t width = 4;
  for (const SweepTask& task : tasks_) width = std::max(width, task.name.size());
  std::string text = fmt::format("{:<{}}{:>12}{:>18}{:>10}{:>10}\n", "run", width, "state", "steps", "FLOPs", "loss");
  for (const SweepTask& task : tasks_) {
    const bool begun = task.progress.state != RunState::Waiting;
    text += fmt::format("{:<{}}{:>12}{:>18}{:>10.3g}{:>10}\n", task.name, width, name(task.state),
                        fmt::format("{}/{}", std::min(task.progress.step, task.steps), task.steps),
                        task.flops_per_step * static_cast<double>(task.steps),
                        begun && task.progress.loss > 0 ? fmt::format("{:.4f}", task.progress.loss) : "");
  }
  return text;
}

}  // namespace tessera
