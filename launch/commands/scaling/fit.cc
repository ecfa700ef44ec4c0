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

int fit_isoflop(const ScalingArguments& arguments) {
  const auto samples = samples_of(load_runs(arguments));
  const auto curves = isoflop_curves(samples);
  const IsoFlopLaw law = isoflop_law(curves);
  fmt::print("WARNING: {}\n", kIsoFlopWarning);
  Table table({{"flops"}, {"runs"}, {"parameters"}, {"tokens"}, {"loss"}});
  for (const IsoFlopCurve& curve : curves) {
    table.add({real(curve.flops, ".4g"), curve.runs.size(), real(curve.best_parameters, ".4g"),
               real(curve.best_tokens, ".4g"), real(curve.lowest_loss, ".4f")},
              {.note = curve.inside ? "" : "not used: at the edge of its sizes",
               .members = Json::Object{{"used", curve.inside}}});
  }
  table.print();
  EstimateTable exponents(arguments.level);
  exponents.add("a", law.parameters.exponent(0, arguments.level));
  exponents.add("b", law.tokens.exponent(0, arguments.level));
  exponents.print();
  if (arguments.as_json) {
    Json object =
        Json::Object{{"form", "isoflop"}, {"warning", std::string(kIsoFlopWarning)}, {"curves", table.json()}};
    print_json(object.set_all(exponents.values())
                   .set("parameters_factor", law.parameters.factor(arguments.level).value)
                   .set("tokens_factor", law.tokens.factor(arguments.level).value)
                   .set("intervals", exponents.intervals()));
  }
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
  EstimateTable estimates(arguments.level);
  estimates.add("factor", law.factor(arguments.level));
  estimates.add("exponent", law.exponent(0, arguments.level));
  estimates.print();
  if (arguments.as_json)
    print_json(
        Json(Json::Object{{"form", "power"}}).set_all(estimates.values()).set("intervals", estimates.intervals()));
  return 0;
}

// What validation says, or why there is none.
Json validation(const FittedLaw& law, const ScalingArguments& arguments) {
  Json result;
  const auto held_out = [&](const char* title, const char* key, auto&& body) {
    try {
      const HeldOut held = body();
      fmt::print("{:<24}{} runs: mean error {:.3f} %, largest {:.3f} %", title, held.rows.size(),
                 100 * held.mean_absolute, 100 * held.largest);
      fmt::print("{}\n",
                 held.compute_ratio > 1 ? fmt::format(", up to {:.3g} times the compute", held.compute_ratio) : "");
      result.set(key, Json::Object{{"runs", held.rows.size()},
                                   {"mean_absolute_log_error", held.mean_absolute},
                                   {"largest_log_error", held.largest},
                                   {"compute_ratio", held.compute_ratio}});
    } catch (const DataError& error) {
      fmt::print("{:<24}not possible: {}\n", title, error.what());
      result.set(key, Json());
    }
  };
  const FitOptions options{.delta = arguments.method == "huber" ? arguments.delta : kLeastSquares};
  held_out("largest fifth held out", "leave_largest_out",
           [&] { return leave_largest_out(*law.form, law.samples, 0.2, options); });
  held_out("five folds", "k_fold", [&] { return k_fold(*law.form, law.samples, 5, arguments.seed, options); });
  const double akaike = corrected_akaike(*law.form, law.samples, law.fit.theta);
  fmt::print("{:<24}{:.2f} (lower is better, among forms on the same runs)\n", "corrected Akaike", akaike);
  result.set("corrected_akaike", akaike);

  const Sample* largest = &law.samples[0];
  for (const Sample& sample : law.samples)
    if (sample.parameters * sample.tokens > largest->parameters * largest->tokens) largest = &sample;
  const Sample target(largest->parameters * 10, largest->tokens * 10, 1);
  auto runs = influence(*law.form, law.samples, law.fit.theta, target, options);
  std::sort(runs.begin(), runs.end(),
            [](const Influence& a, const Influence& b) { return std::abs(a.shift) > std::abs(b.shift); });
  runs.resize(std::min<size_t>(runs.size(), 3));
  fmt::print("runs that move the loss at 100 times the largest compute most, when left out, by these shares of it:\n");
  Table table({{"run", Column::Align::Left, 24}, {"shift"}, {"residual"}, {"leverage"}});
  for (const Influence& run : runs)
    table.add({law.runs[run.row].name, real(run.shift, "+.3f", "%", 100), real(run.residual, "+.3f", "%", 100),
               real(run.leverage, ".2f")});
  table.print();
  result.set("influence", table.json());
  return result;
}

// Of the runs that --hold-out-flops set aside.
Json held_out_runs(const FittedLaw& law, double level) {
  if (law.held_out.empty()) return {};
  int64_t inside = 0;
  double largest = 0;
  Table table({{"run", Column::Align::Left, 24},
               {"compute_ratio"},
               {"measured"},
               {"predicted"},
               {"interval"},
               {"error"},
               {"inside", Column::Align::Left}});
  for (const Prediction& row : predict_runs(*law.form, law.samples, law.bootstrap, law.held_out, level)) {
    inside += row.inside() ? 1 : 0;
    largest = std::max(largest, std::abs(row.error()));
    table.add({row.run.name,
               real(row.times, ".1f", "x"),
               real(row.run.loss, ".4f"),
               real(row.loss.value, ".4f"),
               {interval_json(row.loss), fmt::format("{:.4f} to {:.4f}", row.loss.low, row.loss.high)},
               real(row.error(), "+.2f", "%", 100),
               {row.inside(), row.inside() ? "yes" : "outside"}});
  }
  fmt::print("held out; intervals are of a run, {:g} %\n", 100 * level);
  table.print();
  fmt::print("{} of {} inside their intervals; largest error {:.2f} %\n", inside, table.rows(), 100 * largest);
  return table.json();
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
  EstimateTable estimates(arguments.level);
  const auto& constants = law.form->constants();
  for (size_t k = 0; k < constants.size(); ++k) {
    Estimate interval =
        law.bootstrap.interval([k](std::span<const double> theta) { return theta[k]; }, arguments.level);
    if (constants[k].positive) interval = {std::exp(interval.value), std::exp(interval.low), std::exp(interval.high)};
    estimates.add(constants[k].name, interval);
  }
  estimates.print();
  const Json checks = validation(law, arguments);
  const Json held = held_out_runs(law, arguments.level);
  if (arguments.as_json) {
    Json object = Json::Object{{"objective", law.fit.objective}};
    object.set_all(estimates.values())
        .set("intervals", estimates.intervals())
        .set("form", std::string(law.form->name()))
        .set("method", arguments.method)
        .set("level", arguments.level)
        .set("replicates", arguments.replicates)
        .set("runs", law.samples.size())
        .set("starts", law.fit.starts)
        .set("converged", law.fit.converged)
        .set_all(checks);
    if (!held.empty()) object.set("held_out", held);
    print_json(object);
  }
  return 0;
}

}  // namespace tessera
