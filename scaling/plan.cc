#include "scaling/plan.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kNever = std::numeric_limits<double>::quiet_NaN();
// No model is smaller, and no run shorter.
constexpr double kLeast = 10;

double flops_of(const Sample& sample) { return 6 * sample.parameters * sample.tokens; }

// Where f, which falls and then rises, is lowest in [low, high].
template <class F>
double lowest_point(const F& f, double low, double high) {
  const double golden = 0.5 * (std::sqrt(5.0) - 1);
  double a = high - golden * (high - low), b = low + golden * (high - low), fa = f(a), fb = f(b);
  while (high - low > 1e-9 * (1 + std::abs(low))) {
    if (fa < fb) {
      high = b;
      b = a;
      fb = fa;
      fa = f(a = high - golden * (high - low));
    } else {
      low = a;
      a = b;
      fa = fb;
      fb = f(b = low + golden * (high - low));
    }
  }
  return 0.5 * (low + high);
}

// Where f, which falls, reaches `value` in [low, high], or NaN.
template <class F>
double falls_to(const F& f, double value, double low, double high) {
  if (!(f(high) <= value && f(low) >= value)) return kNever;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (f(middle) > value ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

Allocation compute_optimal(const Form& form, std::span<const double> theta, double flops, double unique_tokens) {
  TESSERA_CHECK(flops > 6 * kLeast * kLeast, "a budget");
  const auto at = [&](double log_n) {
    const double n = std::exp(log_n);
    return Sample(n, flops / (6 * n), 1, unique_tokens);
  };
  const double log_n = lowest_point([&](double x) { return form.log_loss(at(x), theta, {}); }, std::log(kLeast),
                                    std::log(flops / (6 * kLeast)));
  const Sample best = at(log_n);
  return {best.parameters, best.tokens, form.loss(best, theta)};
}

double flops_for_loss(const Form& form, std::span<const double> theta, double loss) {
  return std::exp(falls_to([&](double log_c) { return compute_optimal(form, theta, std::exp(log_c)).loss; }, loss,
                           std::log(1e6), std::log(1e40)));
}

OptimalPlan plan_for_flops(const Form& form, std::span<const Sample> samples, const Bootstrap& bootstrap, double flops,
                           double level, double unique_tokens) {
  const auto exponential = [](const Estimate& x) {
    return Estimate{std::exp(x.value), std::exp(x.low), std::exp(x.high)};
  };
  const auto log_n = [&](std::span<const double> theta) {
    return std::log(compute_optimal(form, theta, flops, unique_tokens).parameters);
  };
  OptimalPlan plan;
  plan.flops = flops;
  plan.parameters = exponential(bootstrap.interval(log_n, level));
  const Estimate& n = plan.parameters;
  plan.tokens = {flops / (6 * n.value), flops / (6 * n.high), flops / (6 * n.low)};
  const Sample best(n.value, plan.tokens.value, 1, unique_tokens);
  plan.loss = exponential(
      bootstrap.interval([&](std::span<const double> theta) { return form.log_loss(best, theta, {}); }, level));
  plan.run_loss = bootstrap.run_interval(form, best, level);
  double most = 0;
  for (const Sample& sample : samples) most = std::max(most, flops_of(sample));
  plan.extrapolation = flops / most;
  return plan;
}

std::vector<OverTraining> over_training(const Form& form, std::span<const double> theta, double flops,
                                        std::span<const double> shares) {
  const Allocation best = compute_optimal(form, theta, flops);
  std::vector<OverTraining> result;
  for (double share : shares) {
    const double n = share * best.parameters;
    const auto loss_at = [&](double log_d) { return form.loss(Sample(n, std::exp(log_d), 1), theta); };
    const double d = flops / (6 * n), log_d = falls_to(loss_at, best.loss, std::log(kLeast), std::log(d) + 25);
    const double needed = std::exp(log_d);
    result.push_back({share, {n, d, form.loss(Sample(n, d, 1), theta)}, 6 * n * needed, needed});
  }
  return result;
}

NextRun next_run(const Form& form, std::span<const Sample> samples, std::span<const double> theta, const Sample& target,
                 double most_flops) {
  const auto p = static_cast<Eigen::Index>(form.size());
  const auto slope_at = [&](const Sample& sample) {
    std::vector<double> slope(form.size());
    form.log_loss(sample, theta, slope);
    return Eigen::VectorXd(Eigen::Map<Eigen::VectorXd>(slope.data(), p));
  };
  Eigen::MatrixXd information = Eigen::MatrixXd::Zero(p, p);
  double least_n = INFINITY, most_n = -INFINITY, least_d = INFINITY, most_d = -INFINITY;
  double least_ratio = INFINITY, most_ratio = -INFINITY;  // of log D / N
  for (const Sample& sample : samples) {
    const Eigen::VectorXd g = slope_at(sample);
    information += g * g.transpose();
    least_n = std::min(least_n, sample.log_parameters);
    most_n = std::max(most_n, sample.log_parameters);
    least_d = std::min(least_d, sample.log_tokens);
    most_d = std::max(most_d, sample.log_tokens);
    least_ratio = std::min(least_ratio, sample.log_tokens - sample.log_parameters);
    most_ratio = std::max(most_ratio, sample.log_tokens - sample.log_parameters);
  }
  const Eigen::LDLT<Eigen::MatrixXd> factor(information);
  const Eigen::VectorXd t = slope_at(target), pull = factor.solve(t);
  const double variance = t.dot(pull), margin = 0.5 * std::log(10.0);
  std::vector<NextRun> candidates;
  constexpr int kSteps = 40;
  for (int i = 0; i <= kSteps; ++i) {
    for (int j = 0; j <= kSteps; ++j) {
      const double log_n = least_n - margin + (most_n - least_n + 2 * margin) * i / kSteps;
      const double log_d = least_d - margin + (most_d - least_d + 2 * margin) * j / kSteps;
      const Sample sample(std::exp(log_n), std::exp(log_d), 1);
      if (flops_of(sample) > most_flops || log_d - log_n < least_ratio - margin || log_d - log_n > most_ratio + margin)
        continue;
      const Eigen::VectorXd g = slope_at(sample);
      const double gain = std::pow(pull.dot(g), 2) / (1 + g.dot(factor.solve(g)));
      const double left = std::sqrt(std::max(0.0, 1 - gain / variance));
      candidates.push_back({sample.parameters, sample.tokens, flops_of(sample), left});
    }
  }
  if (candidates.empty())
    throw UsageError(fmt::format("{:.3g} FLOPs: less than the smallest run that could teach anything", most_flops));
  double best = 1;
  for (const NextRun& each : candidates) best = std::min(best, each.width_left);
  NextRun chosen;
  chosen.flops = INFINITY;
  for (const NextRun& each : candidates)
    if (1 - each.width_left >= 0.9 * (1 - best) && each.flops < chosen.flops) chosen = each;
  return chosen;
}

Duration duration_of(double flops, double parameters, double devices, double peak_flops, const PredictMfu& mfu) {
  const double share = mfu(parameters, devices);
  TESSERA_CHECK(share > 0 && share <= 1 && devices > 0 && peak_flops > 0, "a share of peak, and devices");
  const double hours = flops / (peak_flops * share) / 3600;
  return {share, hours, hours / devices / 24};
}

}  // namespace tessera
