// The pictures of a report, as plots: what is drawn from which numbers.
#pragma once

#include <vector>

#include "scaling/fit/bootstrap.h"
#include "scaling/law/isoflop.h"
#include "scaling/plot.h"
#include "scaling/runs.h"

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

// A run that the fit has not seen.
struct Prediction {
  Run run;
  Estimate loss;     // with the interval of one run
  double times = 0;  // its compute over the largest fitted
  double error() const { return loss.value / run.loss - 1; }
  bool inside() const { return loss.low <= run.loss && run.loss <= loss.high; }
};
// In the order of their compute.
std::vector<Prediction> predict_runs(const Form& form, const std::vector<Sample>& fitted, const Bootstrap& bootstrap,
                                     const std::vector<Run>& runs, double level);

// Training losses against tokens, smoothed over a fiftieth of each run; one colour a size.
Plot loss_curves(const std::vector<TrainingRecord>& records);
// Final loss against size, one curve a budget, with the parabolas.
Plot isoflop_plot(const std::vector<Sample>& samples, const std::vector<IsoFlopCurve>& curves);
// Runs against compute, and the law along its compute-optimal path with the band of the law, to `most_flops`.
Plot fit_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
              const Bootstrap& bootstrap, double level, double most_flops);
// Measured over fitted, in percent, against compute.
Plot residual_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
                   std::span<const double> theta);
// With the intervals of what was held out.
Plot predicted_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
                    std::span<const double> theta);
// Final loss against learning rate, one curve a size and variant; empty when none was tried at several.
Plot learning_rate_plot(const std::vector<Run>& runs);

}  // namespace tessera
