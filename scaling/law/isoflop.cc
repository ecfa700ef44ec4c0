#include "scaling/law/isoflop.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tensor/check.h"

namespace tessera {
namespace {

double log_flops(const Sample& sample) { return std::log(sample.flops); }

void fit_parabola(IsoFlopCurve& curve, std::span<const Sample> samples) {
  const auto n = static_cast<Eigen::Index>(curve.runs.size());
  double centre = 0, smallest = INFINITY, largest = -INFINITY;
  for (size_t run : curve.runs) {
    centre += samples[run].log_parameters / static_cast<double>(n);
    smallest = std::min(smallest, samples[run].log_parameters);
    largest = std::max(largest, samples[run].log_parameters);
  }
  Eigen::MatrixXd x(n, 3);
  Eigen::VectorXd loss(n);
  for (Eigen::Index i = 0; i < n; ++i) {
    const Sample& sample = samples[curve.runs[static_cast<size_t>(i)]];
    const double at = sample.log_parameters - centre;
    x.row(i) << 1, at, at * at;
    loss[i] = sample.loss;
  }
  const Eigen::Vector3d c = x.colPivHouseholderQr().solve(loss);
  curve.curvature = c[2];
  const double lowest = -c[1] / (2 * c[2]);
  curve.best_parameters = std::exp(centre + lowest);
  double per_token = 0;  // FLOPs of a token and parameter, 6 unless they were counted
  for (size_t run : curve.runs)
    per_token += samples[run].flops / (samples[run].parameters * samples[run].tokens) / static_cast<double>(n);
  curve.best_tokens = curve.flops / (per_token * curve.best_parameters);
  curve.lowest_loss = c[0] + c[1] * lowest + c[2] * lowest * lowest;
  curve.inside = c[2] > 0 && centre + lowest > smallest && centre + lowest < largest;
}

}  // namespace

std::vector<IsoFlopCurve> isoflop_curves(std::span<const Sample> samples) {
  std::vector<size_t> order(samples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return log_flops(samples[a]) < log_flops(samples[b]); });
  std::vector<IsoFlopCurve> found;
  std::vector<std::string> problems;
  int usable = 0;
  for (size_t begin = 0; begin < order.size();) {
    IsoFlopCurve curve;
    const double first = log_flops(samples[order[begin]]);
    double sum = 0;
    std::set<double> sizes;
    for (; begin < order.size() && log_flops(samples[order[begin]]) < first + std::log(1.1); ++begin) {
      curve.runs.push_back(order[begin]);
      sum += log_flops(samples[order[begin]]);
      sizes.insert(samples[order[begin]].parameters);
    }
    curve.flops = std::exp(sum / static_cast<double>(curve.runs.size()));
    if (sizes.size() < 3) {
      problems.push_back(fmt::format("{:.3g} FLOPs: {} {}, a parabola takes 3", curve.flops, sizes.size(),
                                     sizes.size() == 1 ? "size" : "sizes"));
      continue;
    }
    fit_parabola(curve, samples);
    if (curve.inside)
      ++usable;
    else
      problems.push_back(
          fmt::format("{:.3g} FLOPs: the lowest loss is at the edge of the {} sizes tried", curve.flops, sizes.size()));
    found.push_back(std::move(curve));
  }
  if (usable < 2) {
    constexpr size_t kShown = 3;
    std::string examples;
    for (size_t i = 0; i < std::min(problems.size(), kShown); ++i) examples += "\n  " + problems[i];
    if (problems.size() > kShown) examples += fmt::format("\n  and {} budgets more", problems.size() - kShown);
    throw DataError(
        fmt::format("{} {} with a lowest loss inside the sizes tried: isoFLOP curves take at least "
                    "2{}\nA law such as chinchilla can be fitted to runs at any sizes.",
                    usable, usable == 1 ? "budget" : "budgets", examples));
  }
  return found;
}

IsoFlopLaw isoflop_law(std::span<const IsoFlopCurve> curves) {
  std::vector<std::vector<double>> flops;
  std::vector<double> parameters, tokens;
  for (const IsoFlopCurve& curve : curves) {
    if (!curve.inside) continue;
    flops.push_back({curve.flops});
    parameters.push_back(curve.best_parameters);
    tokens.push_back(curve.best_tokens);
  }
  return {PowerLaw({"C"}, flops, parameters), PowerLaw({"C"}, flops, tokens)};
}

}  // namespace tessera
