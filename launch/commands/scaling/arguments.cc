#include "launch/commands/scaling/arguments.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/commands/options.h"
#include "scaling/fit/projection.h"
#include "scaling/fit/validate.h"
#include "scaling/law/forms.h"
#include "scaling/recorded_runs.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {

void ScalingArguments::add_to(Command command) {
  const Option table =
      command.add_option("--csv", &csv, "Table of runs: columns parameters,tokens,loss and what scaling/runs.h lists");
  command.add_option("RUNS", &paths, "Run directories, or sweeps' with runs in them, instead of a table")
      .excludes(table);
  command.add_option("--count", &count, "What N is, of run directories: total, non-embedding, compute (FLOPs / 6D)");
  command.add_option("--validation", &validation, "Of run directories with several: the set whose loss is fitted");
  command.add_option("--hold-out-flops", &hold_out_flops, "Runs of more compute are not fitted, but predicted")
      .positive();
  command.add_option("--form", &form,
                     "chinchilla, coupled, kaplan, gadre, muennighoff; fit also takes isoflop (parabolas), power (loss "
                     "against compute), settings (best learning rate and batch), and of run directories tissue, "
                     "multi-power (whole curves), critical-batch");
  command.add_option("--method", &method,
                     "huber: Huber's loss of the error of log loss, summed; projection: least squares with factors by "
                     "non-negative least squares");
  command.add_option("--delta", &delta, "Where Huber's loss turns linear; inf: least squares").positive();
  command.add_option("--level", &level, "Of intervals").within(0.5, 0.999);
  command.add_option("--replicates", &replicates, "Refits that intervals rest on").within(50, 1000000);
  command.add_option("--seed", &seed, "Of the bootstrap");
  command.add_option("--variant", &variant, "Only runs of this variant");
  command.add_option("--tokenizer", &tokenizer, "Only runs with this tokenizer");
  command.add_option("--dataset", &dataset, "Only runs on this data set");
  command.add_flag("--json", as_json, "Last line: one JSON object");
}

std::vector<Run> load_runs(const ScalingArguments& arguments) {
  if (arguments.csv.empty() && arguments.paths.empty())
    throw UsageError("no runs: give a table with --csv, or the directories of runs or sweeps");
  RunTable table = arguments.csv.empty()
                       ? table_of(load_records(arguments), count_of(arguments.count), arguments.validation)
                       : read_runs(arguments.csv);
  if (!arguments.variant.empty()) keep_only(table, "variant", arguments.variant);
  if (!arguments.tokenizer.empty()) keep_only(table, "tokenizer", arguments.tokenizer);
  if (!arguments.dataset.empty()) keep_only(table, "dataset", arguments.dataset);
  check_one_kind(table);
  std::set<std::string> variants;
  for (const Run& run : table.runs) variants.insert(run.variant);
  if (variants.size() > 1 && arguments.variants.empty())
    throw DataError(
        fmt::format("runs of {} variants ({}) are mixed: pick one with --variant NAME, or compare two with "
                    "tessera scaling compare",
                    variants.size(), fmt::join(variants, ", ")));
  for (const std::string& line : table.left_out)
    if (!arguments.quiet) fmt::print("left out  {}\n", line);
  return table.runs;
}

FittedLaw fit_law(const ScalingArguments& arguments) {
  FittedLaw law;
  law.form = make_form(arguments.form);
  law.runs = load_runs(arguments);
  if (arguments.hold_out_flops > 0) {
    const auto fitted = std::stable_partition(law.runs.begin(), law.runs.end(), [&](const Run& run) {
      return run.sample().flops <= arguments.hold_out_flops;
    });
    law.held_out.assign(fitted, law.runs.end());
    law.runs.erase(fitted, law.runs.end());
    if (law.runs.empty() || law.held_out.empty())
      throw UsageError(
          fmt::format("--hold-out-flops {:g}: {} of the runs are above it, and {} are not; some of each are "
                      "needed",
                      arguments.hold_out_flops, law.held_out.size(), law.runs.size()));
  }
  law.samples = samples_of(law.runs);
  check_design(*law.form, law.samples);
  FitOptions options{.delta = arguments.delta};
  if (arguments.method == "projection") {
    const auto* separable = dynamic_cast<const SeparableForm*>(law.form.get());
    if (separable == nullptr)
      throw UsageError(fmt::format("--method projection: the form {} is no sum of terms with a factor each; use huber",
                                   arguments.form));
    law.fit = fit_by_projection(*separable, law.samples);
    options.delta = kLeastSquares;  // what the replicates minimise: the same, to first order
  } else if (arguments.method == "huber") {
    law.fit = fit(*law.form, law.samples, options);
  } else {
    throw UsageError(fmt::format("--method {}: not one of huber, projection", arguments.method));
  }
  if (const auto names = undetermined(*law.form, law.samples, law.fit.theta); !names.empty())
    throw DataError(
        fmt::format("form {}: no run says anything about {}{}; {}", arguments.form, fmt::join(names, ", "),
                    arguments.form == "muennighoff" ? " (column unique_tokens, below tokens where data repeat)" : "",
                    arguments.form == "chinchilla" ? "more sizes and budgets can, or kaplan can be fitted"
                                                   : "chinchilla can be fitted"));
  law.bootstrap = bootstrap(*law.form, law.samples, law.fit,
                            {.replicates = arguments.replicates, .seed = arguments.seed, .fit = options});
  return law;
}

std::vector<TrainingRecord> load_records(const ScalingArguments& arguments) {
  if (arguments.paths.empty())
    throw UsageError("this takes the directories of runs or sweeps, where whole loss curves are; a table has none");
  return read_records(arguments.paths);
}

void print_extrapolation(double times) {
  if (times <= 1) return;
  fmt::print(
      "{}this lies at {:.3g} times the compute of the largest run fitted{}\n",
      times > 10 ? "WARNING: " : "note: ", times,
      times > 10 ? "; the interval counts the noise of the runs, not that the law itself may bend out there" : "");
}

Json interval_json(const Estimate& interval) { return Json::Array{interval.low, interval.high}; }

EstimateTable::EstimateTable(double level)
    : table_({{"", Column::Align::Left, 12},
              {"value", Column::Align::Right, 12},
              {fmt::format("{:g} % from", 100 * level), Column::Align::Right, 12},
              {"to", Column::Align::Right, 12}}) {}

void EstimateTable::add(const std::string& name, const Estimate& estimate) {
  table_.add({name, real(estimate.value, ".6g"), real(estimate.low, ".6g"), real(estimate.high, ".6g")});
  values_.set(name, estimate.value);
  intervals_.set(name, interval_json(estimate));
}

void EstimateTable::add_missing(const std::string& name, const std::string& why) {
  missing_.push_back(name + " not planned: " + why);
  values_.set(name, Json());
}

void EstimateTable::print() const {
  table_.print();
  for (const std::string& line : missing_) fmt::print("{}\n", line);
}

}  // namespace tessera
