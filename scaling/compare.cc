#include "scaling/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "scaling/fit/validate.h"
#include "scaling/plan.h"
#include "scaling/runs.h"
#include "tensor/check.h"

namespace tessera {

VariantForm::VariantForm(const Form& base, std::vector<std::string> variants, bool share_irreducible)
    : base_(base), variants_(variants.size()), share_(share_irreducible) {
  TESSERA_CHECK(!share_ || base.constants()[0].name == "E", "an irreducible loss to share");
  if (share_) constants_.push_back(base.constants()[0]);
  for (const std::string& variant : variants)
    for (size_t k = share_ ? 1 : 0; k < base.size(); ++k)
      constants_.push_back({base.constants()[k].name + " (" + variant + ")", base.constants()[k].positive});
}

size_t VariantForm::place(size_t variant, size_t constant) const {
  if (!share_) return variant * base_.size() + constant;
  return constant == 0 ? 0 : 1 + variant * (base_.size() - 1) + constant - 1;
}

Theta VariantForm::of_variant(std::span<const double> theta, size_t variant) const {
  Theta result(base_.size());
  for (size_t k = 0; k < result.size(); ++k) result[k] = theta[place(variant, k)];
  return result;
}

double VariantForm::log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const {
  const Theta own = of_variant(theta, sample.variant);
  if (gradient.empty()) return base_.log_loss(sample, own, {});
  Theta slope(base_.size());
  const double value = base_.log_loss(sample, own, slope);
  std::fill(gradient.begin(), gradient.end(), 0.0);
  for (size_t k = 0; k < slope.size(); ++k) gradient[place(sample.variant, k)] = slope[k];
  return value;
}

std::vector<Theta> VariantForm::starts(std::span<const Sample> samples) const {
  Theta theta(size(), 0.0);
  for (size_t v = 0; v < variants_; ++v) {
    std::vector<Sample> own;
    for (const Sample& sample : samples)
      if (sample.variant == v) own.push_back(sample);
    const Theta alone = fit(base_, own).theta;
    for (size_t k = 0; k < alone.size(); ++k)
      theta[place(v, k)] += share_ && k == 0 ? alone[k] / static_cast<double>(variants_) : alone[k];
  }
  return {theta};
}

namespace {

// log of the compute-optimal loss of variant 0 over that of variant 1.
double log_advantage(const Form& base, const Theta& first, const Theta& second, double flops) {
  return std::log(compute_optimal(base, first, flops).loss / compute_optimal(base, second, flops).loss);
}

// log FLOPs where the advantage changes sign, or NaN: looked for decade by decade from 1e12 to 1e30.
double log_crossing(const Form& base, const Theta& first, const Theta& second) {
  const double decade = std::log(10.0);
  double low = 12 * decade, at_low = log_advantage(base, first, second, std::exp(low));
  for (int d = 13; d <= 30; ++d) {
    double high = d * decade;
    const double at_high = log_advantage(base, first, second, std::exp(high));
    if ((at_low < 0) == (at_high < 0)) {
      low = high;
      at_low = at_high;
      continue;
    }
    while (high - low > 1e-6) {
      const double middle = 0.5 * (low + high);
      ((log_advantage(base, first, second, std::exp(middle)) < 0) == (at_low < 0) ? low : high) = middle;
    }
    return 0.5 * (low + high);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Estimate exponential(const Estimate& x) { return {std::exp(x.value), std::exp(x.low), std::exp(x.high)}; }

}  // namespace

Comparison compare_variants(const Form& base, const std::vector<std::string>& names, std::span<const Sample> samples,
                            double flops, double level, const BootstrapOptions& options) {
  TESSERA_CHECK_EQ(names.size(), size_t{2}, "variants to compare");
  for (size_t v = 0; v < names.size(); ++v) {
    std::vector<Sample> own;
    for (const Sample& sample : samples)
      if (sample.variant == v) own.push_back(sample);
    try {
      check_design(base, own);
    } catch (const DataError& error) {
      throw DataError(fmt::format("variant {}: {}", names[v], error.what()));
    }
  }
  const VariantForm apart(base, names, false);
  const bool can_share = base.constants()[0].name == "E";
  const VariantForm together(base, names, can_share);
  const Fit fit_apart = fit(apart, samples, options.fit), fit_together = fit(together, samples, options.fit);
  Comparison result;
  result.akaike_apart = corrected_akaike(apart, samples, fit_apart.theta);
  result.akaike_shared = corrected_akaike(together, samples, fit_together.theta);
  result.shared = can_share && result.akaike_shared <= result.akaike_apart;
  const VariantForm& form = result.shared ? together : apart;
  result.fit = result.shared ? fit_together : fit_apart;
  result.bootstrap = bootstrap(form, samples, result.fit, options);

  const auto log_gain = [&](std::span<const double> theta) {
    const double reached = compute_optimal(base, form.of_variant(theta, 1), flops).loss;
    const double needed = flops_for_loss(base, form.of_variant(theta, 0), reached);
    // A loss below the other's irreducible one: no compute is enough.
    return std::isnan(needed) ? std::log(1e40 / flops) : std::log(needed / flops);
  };
  result.gain = exponential(result.bootstrap.interval(log_gain, level));

  const auto crossing = [&](std::span<const double> theta) {
    return log_crossing(base, form.of_variant(theta, 0), form.of_variant(theta, 1));
  };
  Bootstrap crossings{{crossing(result.fit.theta)}, {}, {}, {}};
  for (const Theta& replicate : result.bootstrap.replicates)
    if (const double at = crossing(replicate); !std::isnan(at)) crossings.replicates.push_back({at});
  result.crossing_share = static_cast<double>(crossings.replicates.size()) /
                          static_cast<double>(std::max<size_t>(1, result.bootstrap.replicates.size()));
  const double never = std::numeric_limits<double>::quiet_NaN();
  result.crossing = {never, never, never};
  if (!std::isnan(crossings.theta[0]) && !crossings.replicates.empty())
    result.crossing = exponential(crossings.interval([](std::span<const double> x) { return x[0]; }, level));
  return result;
}

}  // namespace tessera
