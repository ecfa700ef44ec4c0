// What to train for a budget of compute, from a fitted law; C = 6 N D throughout.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "scaling/fit/bootstrap.h"

namespace tessera {

struct Allocation {
  double parameters = 0, tokens = 0, loss = 0;
};

// The N and D = flops / (6 N) of the lowest loss; unique_tokens as in Sample (0: nothing is repeated).
Allocation compute_optimal(const Form& form, std::span<const double> theta, double flops, double unique_tokens = 0);

// The budget at which the compute-optimal loss is `loss`, between 1e6 and 1e40 FLOPs; NaN when no such budget reaches
// it.
double flops_for_loss(const Form& form, std::span<const double> theta, double loss);

struct OptimalPlan {
  double flops = 0;
  Estimate parameters, tokens;  // of the optimum
  Estimate loss;                // of the law at the optimum of the fit
  Estimate run_loss;            // that a run there would measure
  double extrapolation = 0;     // flops over the largest of the runs fitted
};

OptimalPlan plan_for_flops(const Form& form, std::span<const Sample> samples, const Bootstrap& bootstrap, double flops,
                           double level, double unique_tokens = 0);

// Smaller models, trained longer, cost less to serve. For each `share` of the optimal N: the loss at the same budget,
// and the budget that reaches the optimum's loss all the same (NaN when no number of tokens does).
struct OverTraining {
  double share = 0;
  Allocation same_flops;
  double flops_for_same_loss = 0, tokens_for_same_loss = 0;
};

std::vector<OverTraining> over_training(const Form& form, std::span<const double> theta, double flops,
                                        std::span<const double> shares);

// The run that would narrow the interval of the loss at `target` most, by the linearised law (a Bayesian D-optimal step
// for one prediction): variance t' M^-1 t falls by (t' M^-1 g)^2 / (1 + g' M^-1 g) with M the sum of g g' over the
// runs. Among N, D and D / N in the range of the runs and half a decade around it, with 6 N D up to `most_flops`: the
// cheapest of those that do at least nine tenths of what the best does. Throws UsageError when none is that cheap.
struct NextRun {
  double parameters = 0, tokens = 0, flops = 0;
  double width_left = 1;  // of the interval afterwards, as a share of what it is
};

NextRun next_run(const Form& form, std::span<const Sample> samples, std::span<const double> theta, const Sample& target,
                 double most_flops);

// The seam for predicting the MFU of a layout: a share of peak for a model of so many parameters on so many devices.
using PredictMfu = std::function<double(double parameters, double devices)>;

struct Duration {
  double mfu = 0, device_hours = 0, days = 0;
};

// peak_flops: of one device, per second.
Duration duration_of(double flops, double parameters, double devices, double peak_flops, const PredictMfu& mfu);

}  // namespace tessera
