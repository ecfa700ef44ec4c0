// tessera scaling sweep: makes a ladder of runs.
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <thread>

#include "data/shards/token_dataset.h"
#include "launch/commands/run_arguments.h"
#include "launch/commands/scaling/arguments.h"
#include "launch/config/read.h"
#include "launch/config/text.h"
#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "model/cost.h"
#include "scaling/sweep.pb.h"
#include "scaling/sweep_run.h"
#include "scaling/text_file.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

volatile sig_atomic_t stop_asked = 0;

double tokens_of(const RunConfig& config) {
  double tokens = 0;
  for (const DataSource& source : config.data().train()) {
    if (!std::filesystem::exists(source.path())) return 0;
    tokens += static_cast<double>(TokenDataset(source.path()).tokens());
  }
  return tokens;
}

// Configs of this program, for scaling/, which takes them as messages.
DescribedRun describe(const SweepConfig& sweep, const SweepArguments& arguments,
                      const std::vector<std::string>& overrides) {
  std::vector<std::string> all(sweep.set().begin(), sweep.set().end());
  all.insert(all.end(), overrides.begin(), overrides.end());
  all.insert(all.end(), arguments.overrides.begin(), arguments.overrides.end());
  const auto config = std::make_shared<RunConfig>();
  Origins origins;
  read_config(sweep.base(), all, *config, origins);
  const auto data = arguments.dry_run ? Surroundings::Data::NotNeeded : Surroundings::Data::Needed;
  const Layout layout =
      resolve(*config, origins,
              {.world_size = sweep.ranks(), .tokenizer_vocab_size = tokenizer_vocabulary(*config, data), .data = data});
  if (config->run().threads() == 0)
    config->mutable_run()->set_threads(std::max(1, usable_cores() / (sweep.concurrent() * sweep.ranks())));

  const DataConfig& batches = config->data();
  const ModelShape shape = layout.whole_model();
  const Cost cost = model_costs(shape, shape.slots).sum();
  DescribedRun run;
  run.parameters = static_cast<double>(cost.parameters);
  run.non_embedding = run.parameters - static_cast<double>(cost.table_parameters);
  run.flops_per_step = stage_cost(shape, batches.sequence_length()).sum() *
                       static_cast<double>(batches.global_batch_size() / batches.micro_batch_size());
  run.batch_tokens = batches.global_batch_size() * batches.sequence_length();
  run.warmup_steps = config->lr_schedule().warmup_steps();
  run.wsd = config->lr_schedule().kind() == LrScheduleConfig::WSD;
  run.available_tokens = tokens_of(*config);
  run.config = config;
  return run;
}

std::string with_steps(const DescribedRun& run, int64_t steps) {
  RunConfig config = dynamic_cast<const RunConfig&>(*run.config);
  config.mutable_run()->set_steps(steps);
  return to_text(config);
}

std::vector<std::string> train_command(const SweepConfig& sweep) {
  std::vector<std::string> command;
  if (sweep.ranks() > 1) {
    std::istringstream words(sweep.launcher());
    for (std::string word; words >> word;) {
      if (const size_t at = word.find("{ranks}"); at != std::string::npos)
        word.replace(at, 7, std::to_string(sweep.ranks()));
      command.push_back(word);
    }
  }
  command.push_back(own_program());
  return command;
}

// FLOP/s of each size alone, measured: seconds of a few steps on random tokens.
std::map<std::string, double> measured_rates(const SweepPlan& plan, const SweepConfig& sweep) {
  std::map<std::string, double> rates;
  for (const PlannedRun& run : plan.runs) {
    if (rates.contains(run.size)) continue;
    fmt::print(stderr, "measuring {}: a few steps\n", run.size);
    const std::string file = plan.directory + "/plan/measured.textproto";
    std::filesystem::create_directories(plan.directory + "/plan");
    replace_file(file, with_steps(run.run, run.steps));
    std::vector<std::string> command = train_command(sweep);
    command.insert(command.end(), {"bench", "train", file, "--steps", "4", "--microbatches", "0", "--set",
                                   "lr_schedule.learning_rate=1e-6", "--json"});
    std::string output;
    const int code = run_process(command, output);
    if (code != 0) throw IoError(fmt::format("{} ended with {}", fmt::join(command, " "), code));
    rates[run.size] = run.run.flops_per_step / number_in_last_line(output, "step_seconds");
    std::filesystem::remove(file);
  }
  return rates;
}

int print_plan(const SweepArguments& arguments, const SweepConfig& sweep, const SweepPlan& plan) {
  std::map<std::string, double> rates;
  if (arguments.measure) rates = measured_rates(plan, sweep);
  const auto seconds_of = [&](const std::string& size, double flops) {
    const auto rate = rates.find(size);
    return rate == rates.end() ? std::nan("") : flops / rate->second;
  };
  const auto time_cell = [](double seconds) { return std::isnan(seconds) ? Cell() : duration(seconds); };
  Table table({{"run", Column::Align::Left},
               {"parameters"},
               {"tokens"},
               {"tokens_per_parameter"},
               {"steps"},
               {"flops"},
               {"new_flops"},
               {"flops_6nd"},
               {"seconds"}});
  double seconds = 0, most = 0;
  for (const PlannedRun& run : plan.runs) {
    const auto tokens = static_cast<double>(run.tokens);
    const double n = sweep.count() == SweepConfig::TOTAL ? run.run.parameters : run.run.non_embedding;
    const double time = seconds_of(run.size, run.flops_to_do());
    seconds += time;
    most = std::max(most, tokens);
    table.add({run.name,
               {n, with_thousands(std::llround(n))},
               {run.tokens, short_number(tokens)},
               real(tokens / n, ".1f"),
               run.steps,
               real(run.flops, ".3g"),
               real(run.flops_to_do(), ".3g"),
               real(6 * n * tokens, ".3g"),
               time_cell(time)});
  }
  table.print();
  for (const PlannedTrunk& trunk : plan.trunks) {
    const double time = seconds_of(trunk.size, trunk.flops_to_do());
    seconds += time;
    fmt::print("trunk {}: {} steps, {:.3g} FLOPs, branches at {} {}\n", trunk.name, trunk.stops.back(),
               trunk.flops_to_do(), fmt::join(trunk.stops, ", "), time_cell(time).text);
  }
  fmt::print("{} runs, {} trunks, {:.4g} FLOPs to compute", plan.runs.size(), plan.trunks.size(), plan.flops_to_do());
  if (arguments.measure)
    fmt::print("; {} at the speeds measured, {} at once", format_duration(seconds / sweep.concurrent()),
               sweep.concurrent());
  fmt::print("{}\n", arguments.measure ? "" : "; --measure times each size");
  const auto& config = dynamic_cast<const RunConfig&>(*plan.runs.front().run.config);
  for (const DataSource& source : config.data().train()) {
    if (!std::filesystem::exists(source.path()))
      fmt::print(
          "no data at {}: `tessera data build` makes such, and ./launch/documentation.sh those of configs/sweeps/\n",
          source.path());
  }
  const double available = plan.runs.front().run.available_tokens;
  if (available > 0)
    fmt::print("the longest run takes {} of {} tokens{}\n", short_number(most), short_number(available),
               most > available ? ": it sees some of them again" : "");
  if (arguments.as_json) {
    print_json(Json::Object{{"runs", table.json()},
                            {"flops", plan.flops_to_do()},
                            {"trunks", plan.trunks.size()},
                            {"seconds", arguments.measure ? Json(seconds / sweep.concurrent()) : Json()}});
  }
  return 0;
}

int write_slurm(const SweepArguments& arguments, const SweepConfig& sweep, const SweepPlan& plan) {
  const auto groups = groups_of(plan);
  std::string text = fmt::format(
      "#!/usr/bin/env bash\n#SBATCH --job-name={}\n#SBATCH --array=0-{}%{}\n#SBATCH "
      "--output={}/logs/slurm-%a.log\n",
      sweep.name(), groups.size() - 1, sweep.concurrent(), plan.directory);
  for (const std::string& option : sweep.sbatch()) text += "#SBATCH " + option + "\n";
  text += "# Runs that share a trunk are one entry. Submit it again and what is missing goes on.\nset -euo pipefail\n";
  text += fmt::format("cd {}\nruns=(\n", std::filesystem::current_path().string());
  for (const auto& group : groups) text += fmt::format("  \"{}\"\n", fmt::join(group, " "));
  text += ")\n# shellcheck disable=SC2086\n";
  text +=
      fmt::format("exec {} scaling sweep {} --only ${{runs[$SLURM_ARRAY_TASK_ID]}}\n", own_program(), arguments.file);
  std::filesystem::create_directories(plan.directory + "/logs");
  const std::string path = plan.directory + "/sweep.sbatch";
  replace_file(path, text);
  fmt::print("{}: an array of {} for {} runs; sbatch {}\n", path, groups.size(), plan.runs.size(), path);
  return 0;
}

// Draws the table over itself on a terminal; elsewhere a line for each task whose state changed.
class View {
 public:
  explicit View(const Sweep& sweep) : sweep_(sweep), terminal_(::isatty(1) == 1) {}

  void show(bool last) {
    const double left = sweep_.remaining_seconds();
    const std::string eta = std::isnan(left) || last ? "" : fmt::format("ETA {}", format_duration(left));
    if (terminal_) {
      const std::string text = sweep_.table() + eta + "\n";
      if (lines_ > 0) fmt::print("\033[{}A\033[J", lines_);
      fmt::print("{}", text);
      lines_ = std::count(text.begin(), text.end(), '\n');
    } else {
      states_.resize(sweep_.tasks().size(), RunState::Waiting);
      for (size_t i = 0; i < states_.size(); ++i) {
        const SweepTask& task = sweep_.tasks()[i];
        if (task.state == states_[i]) continue;
        states_[i] = task.state;
        fmt::print("{:<28}{:<12}step {}/{}{}  {}\n", task.name, name(task.state),
                   std::min(task.progress.step, task.steps), task.steps,
                   task.progress.loss > 0 ? fmt::format("  loss {:.4f}", task.progress.loss) : "", eta);
      }
      if (last) fmt::print("\n{}", sweep_.table());
    }
    std::fflush(stdout);
  }

 private:
  const Sweep& sweep_;
  bool terminal_;
  int64_t lines_ = 0;
  std::vector<RunState> states_;
};

int make_runs(const SweepArguments& arguments, const SweepConfig& config, const SweepPlan& plan) {
  std::vector<SweepTask> tasks = tasks_of(plan, with_steps);
  if (!arguments.only.empty()) tasks = only(tasks, arguments.only);
  Sweep sweep(plan.directory, std::move(tasks), {.train = train_command(config), .concurrent = config.concurrent()});
  replace_file(plan.directory + "/sweep.textproto", message_text(config));
  View view(sweep);
  stop_asked = 0;
  struct sigaction handler = {};
  handler.sa_handler = [](int) { stop_asked = 1; };
  for (const int number : {SIGINT, SIGTERM}) ::sigaction(number, &handler, nullptr);
  for (int tick = 0; sweep.advance(); ++tick) {
    if (tick % 10 == 0) view.show(false);
    if (stop_asked != 0) {
      sweep.stop();
      view.show(true);
      fmt::print("stopped; start it again to go on\n");
      return static_cast<int>(ExitCode::Stopped);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  view.show(true);
  std::map<RunState, int> counts;
  int code = 0;
  for (const SweepTask& task : sweep.tasks()) {
    ++counts[task.state];
    if (task.state == RunState::Failed) {
      fmt::print("{}: ended with exit code {}; {} says why\n", task.name, task.code, task.log);
      if (code == 0) code = task.code;
    }
  }
  if (code == 0 && counts[RunState::Unfinished] > 0) code = static_cast<int>(ExitCode::Stopped);
  if (arguments.as_json) {
    Json object = Json::Object{{"directory", plan.directory}};
    for (const RunState state :
         {RunState::Finished, RunState::Diverged, RunState::Unfinished, RunState::Failed, RunState::Blocked})
      object.set(name(state), counts[state]);
    print_json(object);
  }
  return code;
}

}  // namespace

int run_scaling_sweep(const SweepArguments& arguments) {
  for (const std::string& text : arguments.overrides)
    for (const char* own : {"run.dir=", "run.name=", "run.steps="})
      if (text.starts_with(own))
        throw UsageError(fmt::format("--set {}: the sweep sets it for each run; --dir moves them all", text));
  SweepConfig config;
  const std::string problem = parse_message(read_file(arguments.file), arguments.file, config);
  if (!problem.empty()) throw UsageError(problem);
  if (arguments.concurrent > 0) config.set_concurrent(arguments.concurrent);
  if (!arguments.directory.empty()) config.set_dir(arguments.directory);
  const SweepPlan plan = plan_sweep(
      config, [&](const std::vector<std::string>& overrides) { return describe(config, arguments, overrides); });
  if (arguments.dry_run) return print_plan(arguments, config, plan);
  if (arguments.slurm) return write_slurm(arguments, config, plan);
  return make_runs(arguments, config, plan);
}

}  // namespace tessera
