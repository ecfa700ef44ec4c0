// tessera scaling report: one page, and its pictures, of runs and what follows from them.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "launch/commands/output_directory.h"
#include "launch/commands/scaling/arguments.h"
#include "launch/process/host.h"
#include "scaling/fit/validate.h"
#include "scaling/page.h"
#include "scaling/plan.h"
#include "scaling/recorded_runs.h"
#include "scaling/sweep.h"
#include "scaling/text_file.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

class Report {
 public:
  explicit Report(const ScalingArguments& arguments)
      : arguments_(arguments), directory_(arguments.output), page_(arguments.title) {
    make_output_directory(directory_, "the report into " + directory_);
  }

  int make() {
    std::vector<TrainingRecord> records;
    if (!arguments_.paths.empty()) records = load_records(arguments_);
    const std::vector<Run> all = all_runs();
    arguments_.quiet = true;  // said once is enough
    attempt("The law", [&] { law(); });
    if (!records.empty()) {
      page_.heading("Loss curves");
      picture(loss_curves(records), "loss_curves", "Training loss, smoothed over a fiftieth of each run.");
    }
    const Plot rates = learning_rate_plot(all);
    if (!rates.series.empty()) {
      page_.heading("Learning rates");
      picture(rates, "learning_rates", "Final validation loss; one curve a size, variant and budget.");
    }
    attempt("IsoFLOP curves", [&] { isoflop(); });
    page_.heading("Runs");
    runs(records);
    const std::string path = directory_ + "/report.html";
    replace_file(path, page_.html());
    fmt::print("{}\n", path);
    std::sort(missing_.begin(), missing_.end());
    if (arguments_.as_json) print_json(Json::Object{{"page", path}, {"pictures", pictures_}, {"missing", missing_}});
    return 0;
  }

 private:
  // The runs of all variants, or of the one asked for.
  std::vector<Run> all_runs() const {
    ScalingArguments any = arguments_;
    any.variants = {"any"};
    return load_runs(any);
  }

  // What cannot be made of these runs is said on the page.
  template <class Work>
  void attempt(const std::string& heading, Work&& work) {
    page_.heading(heading);
    try {
      work();
    } catch (const DataError& error) {
      page_.warning(error.what());
      fmt::print("no {}: {}\n", heading, error.what());
      missing_.push_back(heading);
    }
  }

  void picture(const Plot& plot, const std::string& name, const std::string& caption) {
    const std::string path = fmt::format("{}/{}.png", directory_, name);
    draw({plot}, path);
    page_.picture(path, caption);
    pictures_.push_back(path);
  }

  void isoflop() {
    const auto samples = samples_of(load_runs(arguments_));
    const auto curves = isoflop_curves(samples);
    const IsoFlopLaw law = isoflop_law(curves);
    picture(isoflop_plot(samples, curves), "isoflop", "A parabola for each budget.");
    page_.warning(std::string(kIsoFlopWarning));
    page_.paragraph(fmt::format("N grows as C^{:.3f}, D as C^{:.3f}.", law.parameters.exponent(0, 0.9).value,
                                law.tokens.exponent(0, 0.9).value));
  }

  void law() {
    const FittedLaw law = fit_law(arguments_);
    const double level = arguments_.level;
    const std::vector<Prediction> held = predict_runs(*law.form, law.samples, law.bootstrap, law.held_out, level);
    page_.paragraph(fmt::format("{}: L = {}, fitted to {} runs; {:g} % intervals by bootstrap.", law.form->name(),
                                law.form->formula(), law.samples.size(), 100 * level));
    constants(law);
    if (!held.empty()) held_out(held);
    const double budget = budget_of(law);
    picture(
        fit_plot(*law.form, law.samples, held, law.bootstrap, level, budget), "fit",
        "The law where N and D are the best for the compute (C = 6ND), with the interval of the law. Runs lie above "
        "it, as theirs are not.");
    picture(residual_plot(*law.form, law.samples, held, law.fit.theta), "residuals",
            "What the law does not explain: the noise of seeds, and what is wrong with the form.");
    picture(predicted_plot(*law.form, law.samples, held, law.fit.theta), "predicted", "Predicted against measured.");
    plan(law, budget);
  }

  void constants(const FittedLaw& law) {
    std::vector<std::vector<std::string>> rows;
    const auto& constants = law.form->constants();
    for (size_t k = 0; k < constants.size(); ++k) {
      Estimate value =
          law.bootstrap.interval([k](std::span<const double> theta) { return theta[k]; }, arguments_.level);
      if (constants[k].positive) value = {std::exp(value.value), std::exp(value.low), std::exp(value.high)};
      rows.push_back({constants[k].name, fmt::format("{:.4g}", value.value), fmt::format("{:.4g}", value.low),
                      fmt::format("{:.4g}", value.high)});
    }
    page_.table({"constant", "value", "from", "to"}, rows);
  }

  void held_out(const std::vector<Prediction>& held) {
    std::vector<std::vector<std::string>> rows;
    int inside = 0;
    for (const Prediction& row : held) {
      inside += row.inside() ? 1 : 0;
      rows.push_back({row.run.name, fmt::format("{:.1f} times", row.times), fmt::format("{:.4f}", row.run.loss),
                      fmt::format("{:.4f}", row.loss.value),
                      fmt::format("{:.4f} to {:.4f}", row.loss.low, row.loss.high),
                      fmt::format("{:+.2f} %", 100 * row.error()), row.inside() ? "inside" : "outside"});
    }
    page_.paragraph(fmt::format("{} runs with more compute were not fitted; {} of them lie inside their intervals.",
                                held.size(), inside));
    page_.table({"held out", "compute", "measured", "predicted", "interval of a run", "error", ""}, rows);
  }

  // What is planned for: as asked, or a hundred times the largest run.
  double budget_of(const FittedLaw& law) const {
    if (arguments_.flops > 0) return arguments_.flops;
    double most = 0;
    for (const Sample& sample : law.samples) most = std::max(most, sample.flops);
    return 100 * most;
  }

  void plan(const FittedLaw& law, double budget) {
    page_.heading("Plan");
    std::vector<std::vector<std::string>> rows;
    for (const double share : {0.01, 0.1, 1.0}) {
      const OptimalPlan plan = plan_for_flops(*law.form, law.samples, law.bootstrap, share * budget, arguments_.level);
      const auto range = [](const Estimate& x) { return short_number(x.low) + " to " + short_number(x.high); };
      rows.push_back({fmt::format("{:.3g}", plan.flops), short_number(plan.parameters.value), range(plan.parameters),
                      short_number(plan.tokens.value), range(plan.tokens), fmt::format("{:.4f}", plan.loss.value),
                      fmt::format("{:.4f} to {:.4f}", plan.run_loss.low, plan.run_loss.high),
                      fmt::format("{:.3g} times", plan.extrapolation)});
    }
    page_.table({"FLOPs (6ND)", "parameters", "", "tokens", "", "loss", "interval of a run", "largest run fitted"},
                rows);
    page_.paragraph("Intervals count the noise of the runs, not that the law itself may bend out there.");
  }

  void runs(const std::vector<TrainingRecord>& records) {
    std::vector<std::vector<std::string>> rows;
    for (const TrainingRecord& record : records) {
      const double flops = record.flops().matrices() + record.flops().attention() + record.flops().head();
      const auto validation = record.validation_loss();
      rows.push_back(
          {record.name(), TrainingRecord::Status_Name(record.status()),
           short_number(static_cast<double>(record.parameters())), short_number(static_cast<double>(record.tokens())),
           fmt::format("{:.3g}", flops), fmt::format("{}/{}", record.step(), record.planned_steps()),
           fmt::format("{:.3g}", record.learning_rate()), std::to_string(record.batch_tokens()),
           validation.empty() ? "" : fmt::format("{:.4f}", validation.rbegin()->loss()),
           record.gradient_noise().has_scale_tokens() ? short_number(record.gradient_noise().scale_tokens()) : "",
           format_duration(record.seconds())});
    }
    if (records.empty()) {
      for (const Run& run : all_runs())
        rows.push_back({run.name, "FINISHED", short_number(run.parameters), short_number(run.tokens),
                        fmt::format("{:.3g}", run.sample().flops), "", "", "", fmt::format("{:.4f}", run.loss), "",
                        ""});
    }
    page_.table({"run", "status", "parameters", "tokens", "FLOPs", "steps", "learning rate", "batch (tokens)", "loss",
                 "noise scale", "time"},
                rows);
  }

  ScalingArguments arguments_;
  std::string directory_;
  Page page_;
  std::vector<std::string> pictures_, missing_;
};

}  // namespace

int run_scaling_report(const ScalingArguments& arguments) { return Report(arguments).make(); }

}  // namespace tessera
