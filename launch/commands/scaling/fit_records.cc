// tessera scaling fit of what only run records hold: whole loss curves, batches, settings.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "launch/commands/scaling/arguments.h"
#include "scaling/law/multi_power.h"
#include "scaling/law/tissue.h"
#include "scaling/recorded_curves.h"
#include "scaling/settings.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr size_t kPointsOfACurve = 64;

// Finished runs, all of one size: a law of one model.
std::vector<TrainingRecord> of_one_size(const ScalingArguments& arguments) {
  std::vector<TrainingRecord> records;
  std::set<int64_t> sizes;
  for (TrainingRecord& record : load_records(arguments)) {
    if (record.status() != TrainingRecord::FINISHED) {
      fmt::print("left out  {}: {}\n", record.name(),
                 record.status() == TrainingRecord::DIVERGED ? "it diverged" : "unfinished");
      continue;
    }
    sizes.insert(record.parameters());
    records.push_back(std::move(record));
  }
  if (records.empty()) throw DataError("no finished run");
  if (sizes.size() > 1)
    throw DataError(
        fmt::format("runs of {} sizes ({} to {} parameters): this law is of one model; give the directories "
                    "of one size",
                    sizes.size(), *sizes.begin(), *sizes.rbegin()));
  return records;
}

std::unique_ptr<CurveLaw> law_of(const std::string& form, std::span<const LossCurve> curves) {
  if (form == "tissue") return std::make_unique<Tissue>(curves);
  return std::make_unique<MultiPower>(curves);
}

// The last loss of a curve that the others' fit has not seen, predicted over measured.
double last_error(const std::string& form, const std::vector<LossCurve>& curves, size_t left_out,
                  const FitOptions& options) {
  std::vector<LossCurve> others = curves;
  others.erase(others.begin() + static_cast<std::ptrdiff_t>(left_out));
  const Fit found = fit(*law_of(form, others), options);
  const std::vector<LossCurve> alone = {curves[left_out]};
  const auto law = law_of(form, alone);
  return std::exp(law->log_loss(law->rows() - 1, found.theta, {}) - law->log_observed().back()) - 1;
}

}  // namespace

int fit_curves(const ScalingArguments& arguments) {
  const std::vector<TrainingRecord> records = of_one_size(arguments);
  std::vector<LossCurve> curves;
  for (const TrainingRecord& record : records) curves.push_back(curve_of(record, kPointsOfACurve));
  const auto law = law_of(arguments.form, curves);
  const FitOptions options{.delta = arguments.delta};
  const Fit found = fit(*law, options);
  double squares = 0;
  for (size_t row = 0; row < law->rows(); ++row)
    squares += std::pow(law->log_observed()[row] - law->log_loss(row, found.theta, {}), 2);
  const double deviation = std::sqrt(squares / static_cast<double>(law->rows()));
  fmt::print("{}: L = {}\n{} curves, {} points; objective {:.6g}; residuals {:.3f} % of the training loss\n",
             law->name(), law->formula(), curves.size(), law->rows(), found.objective, 100 * deviation);
  Facts values;
  for (size_t k = 0; k < law->constants().size(); ++k) {
    const Constant& constant = law->constants()[k];
    values.add(constant.name, real(constant.positive ? std::exp(found.theta[k]) : found.theta[k], ".6g"));
  }
  values.print();
  Table errors({{"run", Column::Align::Left, 28}, {"error"}});
  for (size_t i = 0; i < curves.size() && curves.size() > 1; ++i)
    errors.add({records[i].name(), real(last_error(arguments.form, curves, i, options), "+.2f", "%", 100)});
  if (errors.rows() > 0) {
    fmt::print("each run left out in turn: the error of its last loss, as the others predict it\n");
    errors.print();
  }
  if (arguments.as_json)
    print_json(Json::Object{{"form", std::string(law->name())},
                            {"objective", found.objective},
                            {"constants", values.json()},
                            {"curves", curves.size()},
                            {"deviation", deviation},
                            {"left_out", errors.json()}});
  return 0;
}

int fit_batches(const ScalingArguments& arguments) {
  const std::vector<TrainingRecord> records = of_one_size(arguments);
  fmt::print("gradient noise scale, measured over the second half of each run\n");
  Table noise({{"run", Column::Align::Left, 28}, {"batch_tokens"}, {"scale_tokens"}});
  for (const TrainingRecord& record : records) {
    noise.add({record.name(), record.batch_tokens(),
               record.gradient_noise().has_scale_tokens() ? real(record.gradient_noise().scale_tokens(), ".4g")
                                                          : Cell(Json(), "not measured")});
  }
  noise.print();
  Table table({{"loss"}, {"least_steps"}, {"least_tokens"}, {"critical_batch_tokens"}});
  const std::vector<BatchLaw> laws = batch_laws(records);
  std::vector<std::vector<double>> losses;
  std::vector<double> critical;
  for (const BatchLaw& law : laws) {
    table.add({real(law.loss, ".4f"), real(law.critical.least_steps, ".5g"), real(law.critical.least_tokens, ".5g"),
               real(law.critical.tokens(), ".5g")});
    losses.push_back({law.loss});
    critical.push_back(law.critical.tokens());
  }
  table.print();
  Json power;
  if (laws.size() >= 3) {
    const PowerLaw law({"L"}, losses, critical);
    const Estimate exponent = law.exponent(0, arguments.level);
    fmt::print(
        "B_crit = {:.4g} L^{:.3f} (exponent {:.3f} to {:.3f}; the losses are of the same runs, so this is too "
        "sure)\n",
        law.factor(arguments.level).value, exponent.value, exponent.low, exponent.high);
    power = Json::Object{{"factor", law.factor(arguments.level).value}, {"exponent", exponent.value}};
  }
  if (arguments.as_json)
    print_json(Json::Object{
        {"form", "critical-batch"}, {"losses", table.json()}, {"power", power}, {"noise_scale", noise.json()}});
  return 0;
}

int fit_settings(const ScalingArguments& arguments) {
  const std::vector<Run> runs = load_runs(arguments);
  Json object = Json::Object{{"form", "settings"}};
  for (const auto& [title, key, setting] : {std::tuple("learning rate", "learning_rate", &Run::learning_rate),
                                            std::tuple("batch in tokens", "batch_tokens", &Run::batch_tokens)}) {
    const std::vector<BestSetting> best = best_settings(runs, setting);
    fmt::print("{}\n", title);
    Table table({{"parameters"}, {"tokens"}, {"value"}, {"tried"}, {"loss"}});
    for (const BestSetting& one : best) {
      table.add(
          {real(one.parameters, ".4g"), real(one.tokens, ".4g"), real(one.value, ".4g"), one.tried,
           real(one.loss, ".4f")},
          {.note = one.inside ? "" : "the edge of what was tried", .members = Json::Object{{"inside", one.inside}}});
    }
    table.print();
    Json found;
    try {
      const PowerLaw law = settings_law(best);
      Json exponents;
      fmt::print("  = {:.4g}", law.factor(arguments.level).value);
      for (size_t k = 0; k < law.names().size(); ++k) {
        const Estimate exponent = law.exponent(k, arguments.level);
        fmt::print(" {}^{:.3f} ({:.3f} to {:.3f})", law.names()[k], exponent.value, exponent.low, exponent.high);
        exponents.set(law.names()[k], Json::Object{{"value", exponent.value}, {"interval", interval_json(exponent)}});
      }
      fmt::print("\n");
      found = Json::Object{{"factor", law.factor(arguments.level).value}, {"exponents", exponents}};
    } catch (const DataError& error) {
      fmt::print("  no law: {}\n", error.what());
    }
    object.set(key, Json::Object{{"best", table.json()}, {"law", found}});
  }
  if (arguments.as_json) print_json(object);
  return 0;
}

}  // namespace tessera
