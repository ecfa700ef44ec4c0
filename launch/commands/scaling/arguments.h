// What the commands of `tessera scaling` share: runs from a table, a form, a fit and its intervals.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "launch/commands/table.h"
#include "scaling/fit/bootstrap.h"
#include "scaling/report_plots.h"
#include "scaling/runs.h"

namespace tessera {

class Command;         // launch/commands/options.h
class TrainingRecord;  // scaling/training_record.proto

struct ScalingArguments {
  std::string csv;
  std::vector<std::string> paths;  // run and sweep directories, instead of csv
  std::string count = "total", validation;
  double hold_out_flops = 0;  // runs above are not fitted but predicted; 0: none
  std::string form = "chinchilla", method = "huber";
  std::string variant, tokenizer, dataset;
  double delta = kHuberDelta, level = 0.9;
  int replicates = 1000;
  uint64_t seed = 1;
  bool as_json = false;
  bool quiet = false;  // about runs that are left out
  // predict, plan, compare
  double parameters = 0, tokens = 0, unique_tokens = 0, flops = 0, gpu_hours = 0, devices = 0, mfu = 0.4;
  std::string hardware;
  std::vector<std::string> variants;
  double next_flops = 0;
  std::string output = "report", title = "Scaling report";  // report

  // The options of all: --csv, --form, ... --json.
  void add_to(Command command);
};

// The runs that are to be fitted, with one line printed for each that is not. Throws UsageError and DataError (exit
// codes 2 and 3) for options and tables that do not serve.
std::vector<Run> load_runs(const ScalingArguments& arguments);
// The records of the paths. Throws UsageError when a table was given instead.
std::vector<TrainingRecord> load_records(const ScalingArguments& arguments);

struct FittedLaw {
  std::unique_ptr<Form> form;
  std::vector<Run> runs;
  std::vector<Sample> samples;
  std::vector<Run> held_out;
  Fit fit;
  Bootstrap bootstrap;
};

// Reads, checks, fits, and makes intervals ready.
FittedLaw fit_law(const ScalingArguments& arguments);

// Prints how far beyond the fitted runs this lies, loudly from ten times their compute on.
void print_extrapolation(double times);

Json interval_json(const Estimate& interval);  // [low, high]; null for what is not finite

// Estimated numbers with their intervals: a row for each, and in JSON its value under its name and [low, high] among
// the intervals.
class EstimateTable {
 public:
  // level: of the intervals, as the headings say it.
  explicit EstimateTable(double level);

  void add(const std::string& name, const Estimate& estimate);
  // A line of words below the rows; JSON has null.
  void add_missing(const std::string& name, const std::string& why);
  void print() const;

  const Json& values() const { return values_; }
  const Json& intervals() const { return intervals_; }

 private:
  Table table_;
  std::vector<std::string> missing_;
  Json values_ = Json::Object(), intervals_ = Json::Object();
};

struct SweepArguments {
  std::string file, directory;
  std::vector<std::string> overrides, only;
  int concurrent = 0;  // 0: the file's
  bool dry_run = false, measure = false, slurm = false, as_json = false;
};

struct CoordcheckArguments {
  std::string config, picture;
  std::vector<std::string> overrides;
  std::vector<int64_t> widths = {64, 128, 256, 512};
  int64_t steps = 5;
  int seeds = 3;
  // Halfway between what is right, 0, and the nearest wrong power of the width, 1/2.
  double tolerance = 0.25;
  bool as_json = false;
};

int run_scaling_coordcheck(const CoordcheckArguments& arguments);
int run_scaling_sweep(const SweepArguments& arguments);
int run_scaling_fit(const ScalingArguments& arguments);
// fit --form tissue and multi-power; critical-batch; settings (launch/commands/scaling/fit_records.cc).
int fit_curves(const ScalingArguments& arguments);
int fit_batches(const ScalingArguments& arguments);
int fit_settings(const ScalingArguments& arguments);
int run_scaling_predict(const ScalingArguments& arguments);
int run_scaling_report(const ScalingArguments& arguments);
int run_scaling_plan(const ScalingArguments& arguments);
int run_scaling_compare(const ScalingArguments& arguments);

}  // namespace tessera
