#include "scaling/recorded_curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {

LossCurve curve_of(const TrainingRecord& record, size_t points) {
  const TrainingRecord::Curve& curve = record.curve();
  const int count = curve.step_size();
  int first = 0;
  while (first < count && curve.step(first) <= record.warmup_steps()) ++first;
  if (count - first < 8)
    throw DataError(
        fmt::format("{}: {} recorded steps after warm-up; a curve takes at least 8", record.name(), count - first));
  LossCurve result;
  result.warmup_steps = static_cast<size_t>(record.warmup_steps());
  int64_t step = 0;
  for (int i = 0; i < count; ++i) {
    const double before = i == 0 ? 0 : curve.learning_rate(i - 1), now = curve.learning_rate(i);
    const int64_t from = step;
    for (++step; step <= curve.step(i); ++step)
      result.learning_rates.push_back(before + (now - before) * static_cast<double>(step - from) /
                                                   static_cast<double>(curve.step(i) - from));
    step = curve.step(i);
  }
  const auto bins = std::min(points, static_cast<size_t>(count - first));
  for (size_t bin = 0; bin < bins; ++bin) {
    const int begin = first + static_cast<int>(bin * static_cast<size_t>(count - first) / bins);
    const int end = first + static_cast<int>((bin + 1) * static_cast<size_t>(count - first) / bins);
    double loss = 0, at = 0;
    for (int i = begin; i < end; ++i) {
      loss += curve.loss(i) / (end - begin);
      at += static_cast<double>(curve.step(i)) / (end - begin);
    }
    result.steps.push_back(static_cast<size_t>(std::llround(at)));
    result.losses.push_back(loss);
  }
  return result;
}

double steps_to(const TrainingRecord& record, double loss) {
  double step = 0, before = INFINITY;
  for (const auto& measured : record.validation_loss()) {
    const auto now = static_cast<double>(measured.step());
    if (measured.loss() <= loss) {
      if (!(step > 0)) return now;
      const double share = (before - loss) / (before - measured.loss());
      return step * std::pow(now / step, share);
    }
    step = now;
    before = measured.loss();
  }
  return 0;
}

std::vector<BatchLaw> batch_laws(const std::vector<TrainingRecord>& records, int targets) {
  std::set<int64_t> batches;
  double reached = 0, start = INFINITY;  // the lowest that all reached; the highest that all began under
  for (const TrainingRecord& record : records) {
    batches.insert(record.batch_tokens());
    double least = INFINITY, first = 0;
    for (const auto& measured : record.validation_loss()) {
      least = std::min(least, measured.loss());
      if (measured.step() > record.warmup_steps() && first == 0) first = measured.loss();
    }
    reached = std::max(reached, least);
    start = std::min(start, first);
  }
  if (batches.size() < 2)
    throw DataError(fmt::format("{} runs with one batch of {} tokens: a critical batch takes at least two batches",
                                records.size(), batches.empty() ? 0 : *batches.begin()));
  if (!(reached < start))
    throw DataError(
        "no loss that all runs reached on their way: set evaluation.every_steps, so that there are losses "
        "between the first and the last");
  std::vector<BatchLaw> laws;
  std::string problem;
  for (int i = 0; i < targets; ++i) {
    const double loss = reached * std::pow(start / reached, static_cast<double>(i) / targets);
    std::vector<BatchRun> runs;
    for (const TrainingRecord& record : records)
      runs.push_back({static_cast<double>(record.batch_tokens()), steps_to(record, loss)});
    try {
      laws.push_back({loss, fit_critical_batch(runs)});
    } catch (const DataError& error) {
      problem = error.what();
    }
  }
  if (laws.empty()) throw DataError(problem);
  return laws;
}

}  // namespace tessera
