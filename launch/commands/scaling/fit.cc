// tessera scaling fit: the constants of a law with intervals, and how far to trust them.
#include <algorithm>
#include <cmath>

#include "launch/commands/scaling/arguments.h"
#include "scaling/fit/validate.h"
#include "scaling/law/isoflop.h"
#include "scaling/law/power_law.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using json = nlohmann::ordered_json;

void print_constant(const std::string& name, const Estimate& interval) {
  fmt::print("{:<10}{:>14.6g}{:>14.6g}{:>14.6g}\n", name, interval.value, interval.low, interval.high);
}

void print_head(const ScalingArguments& arguments) {
  fmt::print("{:<10}{:>14}{:>14}{:>14}\n", "", "value", fmt::format("{:g} % from", 100 * arguments.level), "to");
}

int fit_isoflop(const ScalingArguments& arguments) {
  const auto samples = samples_of(load_runs(arguments));
  const auto curves = isoflop_curves(samples);
  const IsoFlopLaw law = isoflop_law(curves);
  fmt::print("WARNING: {}\n", kIsoFlopWarning);
  json rows = json::array();
  fmt::print("{:>12}{:>8}{:>14}{:>14}{:>10}\n", "FLOPs", "runs", "parameters", "tokens", "loss");
  for (const IsoFlopCurve& curve : curves) {
    fmt::print("{:>12.4g}{:>8}{:>14.4g}{:>14.4g}{:>10.4f}{}\n", curve.flops, curve.runs.size(), curve.best_parameters,
               curve.best_tokens, curve.lowest_loss, curve.inside ? "" : "  not used: at the edge of its sizes");
    rows.push_back({{"flops", curve.flops},
                    {"parameters", curve.best_parameters},
                    {"tokens", curve.best_tokens},
                    {"loss", curve.lowest_loss},
                    {"used", curve.inside}});
  }
  print_head(arguments);
  const Estimate a = law.parameters.exponent(0, arguments.level);
  const Estimate b = law.tokens.exponent(0, arguments.level);
  print_constant("a", a);
  print_constant("b", b);
  if (arguments.as_json)
    print_json({{"form", "isoflop"},
                {"warning", kIsoFlopWarning},
                {"curves", std::move(rows)},
                {"a", a.value},
                {"b", b.value},
                {"parameters_factor", law.parameters.factor(arguments.level).value},
                {"tokens_factor", law.tokens.factor(arguments.level).value},
                {"intervals", {{"a", interval_json(a)}, {"b", interval_json(b)}}}});
  return 0;
}

int fit_power(const ScalingArguments& arguments) {
  std::vector<std::vector<double>> compute;
  std::vector<double> losses;
  for (const Run& run : load_runs(arguments)) {
    compute.push_back({run.sample().flops});
    losses.push_back(run.loss);
  }
  const PowerLaw law({"C"}, compute, losses);
  fmt::print("loss = factor C^exponent, C = 6ND or as counted, by least squares on logarithms over {} runs\n",
             losses.size());
  print_head(arguments);
  const Estimate factor = law.factor(arguments.level);
  const Estimate exponent = law.exponent(0, arguments.level);
  print_constant("factor", factor);
  print_constant("exponent", exponent);
  if (arguments.as_json)
    print_json({{"form", "power"},
                {"factor", factor.value},
                {"exponent", exponent.value},
                {"intervals", {{"factor", interval_json(factor)}, {"exponent", interval_json(exponent)}}}});
  return 0;
}

// What validation says, or why there is none.
json validation(const FittedLaw& law, const ScalingArguments& arguments) {
  json result;
  const auto held_out = [&](const char* title, const char* key, auto&& body) {
    try {
      const HeldOut held = body();
      fmt::print("{:<24}{} runs: mean error {:.3f} %, largest {:.3f} %", title, held.rows.size(),
                 100 * held.mean_absolute, 100 * held.largest);
      fmt::print("{}\n",
                 held.compute_ratio > 1 ? fmt::format(", up to {:.3g} times the compute", held.compute_ratio) : "");
      result[key] = {{"runs", held.rows.size()},
                     {"mean_absolute_log_error", held.mean_absolute},
                     {"largest_log_error", held.largest},
                     {"compute_ratio", held.compute_ratio}};
    } catch (const DataError& error) {
      fmt::print("{:<24}not possible: {}\n", title, error.what());
      result[key] = nullptr;
    }
  };
  const FitOptions options{.delta = arguments.method == "huber" ? arguments.delta : kLeastSquares};
  held_out("largest fifth held out", "leave_largest_out",
           [&] { return leave_largest_out(*law.form, law.samples, 0.2, options); });
  held_out("five folds", "k_fold", [&] { return k_fold(*law.form, law.samples, 5, arguments.seed, options); });
  const double akaike = corrected_akaike(*law.form, law.samples, law.fit.theta);
  fmt::print("{:<24}{:.2f} (lower is better, among forms on the same runs)\n", "corrected Akaike", akaike);
  result["corrected_akaike"] = std::isfinite(akaike) ? json(akaike) : json();

  const Sample* largest = &law.samples[0];
  for (const Sample& sample : law.samples)
    if (sample.parameters * sample.tokens > largest->parameters * largest->tokens) largest = &sample;
  const Sample target(largest->parameters * 10, largest->tokens * 10, 1);
  auto runs = influence(*law.form, law.samples, law.fit.theta, target, options);
  std::sort(runs.begin(), runs.end(),
            [](const Influence& a, const Influence& b) { return std::abs(a.shift) > std::abs(b.shift); });
  runs.resize(std::min<size_t>(runs.size(), 3));
  json rows = json::array();
  fmt::print("runs that move the loss at 100 times the largest compute most, when left out:\n");
  for (const Influence& run : runs) {
    const std::string& name = law.runs[run.row].name;
    fmt::print("  {:<24} by {:+.3f} %, residual {:+.3f} %, leverage {:.2f}\n", name, 100 * run.shift,
               100 * run.residual, run.leverage);
    rows.push_back({{"run", name}, {"shift", run.shift}, {"residual", run.residual}, {"leverage", run.leverage}});
  }
  result["influence"] = std::move(rows);
  return result;
}

// Of the runs that --hold-out-flops set aside.
json held_out_runs(const FittedLaw& law, double level) {
  json rows = json::array();
  if (law.held_out.empty()) return rows;
  int inside = 0;
  double largest = 0;
  fmt::print("{:<26}{:>10}{:>10}{:>10}{:>22}{:>10}\n", "held out", "compute", "measured", "predicted",
             fmt::format("a run, {:g} %", 100 * level), "error");
  for (const Prediction& row : predict_runs(*law.form, law.samples, law.bootstrap, law.held_out, level)) {
    inside += row.inside() ? 1 : 0;
    largest = std::max(largest, std::abs(row.error()));
    fmt::print("{:<26}{:>10}{:>10.4f}{:>10.4f}{:>22}{:>+8.2f} %{}\n", row.run.name, fmt::format("{:.1f} x", row.times),
               row.run.loss, row.loss.value, fmt::format("{:.4f} to {:.4f}", row.loss.low, row.loss.high),
               100 * row.error(), row.inside() ? "" : "  outside");
    rows.push_back({{"run", row.run.name},
                    {"compute_ratio", row.times},
                    {"measured", row.run.loss},
                    {"predicted", row.loss.value},
                    {"interval", interval_json(row.loss)},
                    {"error", row.error()},
                    {"inside", row.inside()}});
  }
  fmt::print("{} of {} inside their intervals; largest error {:.2f} %\n", inside, rows.size(), 100 * largest);
  return rows;
}

}  // namespace

int run_scaling_fit(const ScalingArguments& arguments) {
  if (arguments.form == "isoflop") return fit_isoflop(arguments);
  if (arguments.form == "power") return fit_power(arguments);
  if (arguments.form == "tissue" || arguments.form == "multi-power") return fit_curves(arguments);
  if (arguments.form == "critical-batch") return fit_batches(arguments);
  if (arguments.form == "settings") return fit_settings(arguments);
  const FittedLaw law = fit_law(arguments);
  const bool by_huber = arguments.method == "huber";
  const std::string objective =
      by_huber ? fmt::format("sum of Huber's loss of log loss, delta {:g}", arguments.delta)
               : std::string("half the sum of squared relative errors, factors by non-negative least squares");
  fmt::print("{}: L = {}\n{} runs; objective {:.6g}: {}\n", law.form->name(), law.form->formula(), law.samples.size(),
             law.fit.objective, objective);
  if (!law.fit.converged) fmt::print("WARNING: the search for the minimum stopped before it settled\n");
  print_head(arguments);
  const auto& constants = law.form->constants();
  json values, intervals;
  for (size_t k = 0; k < constants.size(); ++k) {
    Estimate interval =
        law.bootstrap.interval([k](std::span<const double> theta) { return theta[k]; }, arguments.level);
    if (constants[k].positive) interval = {std::exp(interval.value), std::exp(interval.low), std::exp(interval.high)};
    print_constant(constants[k].name, interval);
    values[constants[k].name] = interval.value;
    intervals[constants[k].name] = interval_json(interval);
  }
  const json checks = validation(law, arguments);
  const json held = held_out_runs(law, arguments.level);
  if (arguments.as_json) {
    json object = {{"objective", law.fit.objective}};
    object.update(values);
    object["intervals"] = intervals;
    object.update({{"form", law.form->name()},
                   {"method", arguments.method},
                   {"level", arguments.level},
                   {"replicates", arguments.replicates},
                   {"runs", law.samples.size()},
                   {"starts", law.fit.starts},
                   {"converged", law.fit.converged}});
    object.update(checks);
    if (!held.empty()) object["held_out"] = held;
    print_json(object);
  }
  return 0;
}

}  // namespace tessera
