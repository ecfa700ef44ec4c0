#include "scaling/report_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "scaling/plan.h"
#include "scaling/sweep.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

Series series(const std::string& title, Series::Style style, int colour) {
  return {.title = title, .style = style, .colour = colour, .x = {}, .y = {}};
}

Series held_out_bars(const std::vector<Prediction>& held_out) {
  return series(held_out.empty() ? "" : "held out, measured", Series::Style::Points, 1);
}

}  // namespace

std::vector<Prediction> predict_runs(const Form& form, const std::vector<Sample>& fitted, const Bootstrap& bootstrap,
                                     const std::vector<Run>& runs, double level) {
  double most = 0;
  for (const Sample& sample : fitted) most = std::max(most, sample.flops);
  std::vector<Prediction> rows;
  for (const Run& run : runs) {
    const Sample sample = run.sample();
    rows.push_back({run, bootstrap.run_interval(form, sample, level), sample.flops / most});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.times < b.times; });
  return rows;
}

Plot loss_curves(const std::vector<TrainingRecord>& records) {
  Plot plot{
      .title = "Loss curves", .x_label = "training tokens", .y_label = "training loss (nats per token)", .log_x = true};
  std::map<int64_t, int> colours;
  for (const TrainingRecord& record : records) colours.emplace(record.parameters(), 0);
  int next = 0;
  for (auto& [size, colour] : colours) colour = next++;
  std::set<int64_t> named;
  for (const TrainingRecord& record : records) {
    const auto& curve = record.curve();
    const int window = std::max(1, curve.step_size() / 50);
    Series line = series("", Series::Style::Line, colours.at(record.parameters()));
    if (named.insert(record.parameters()).second)
      line.title = short_number(static_cast<double>(record.parameters())) + " parameters";
    for (int end = window; end <= curve.step_size(); end += window) {
      double loss = 0;
      for (int i = end - window; i < end; ++i) loss += curve.loss(i) / window;
      line.x.push_back(static_cast<double>(curve.step(end - 1) * record.batch_tokens()));
      line.y.push_back(loss);
    }
    plot.series.push_back(std::move(line));
  }
  return plot;
}

Plot isoflop_plot(const std::vector<Sample>& samples, const std::vector<IsoFlopCurve>& curves) {
  Plot plot{.title = "IsoFLOP curves", .x_label = "parameters", .y_label = "loss (nats per token)", .log_x = true};
  int colour = 0;
  for (const IsoFlopCurve& curve : curves) {
    Series points = series(fmt::format("{:.3g} FLOPs", curve.flops), Series::Style::Points, colour);
    Series line = series("", Series::Style::Line, colour++);
    double least = INFINITY, most = 0;
    for (const size_t run : curve.runs) {
      points.x.push_back(samples[run].parameters);
      points.y.push_back(samples[run].loss);
      least = std::min(least, samples[run].parameters);
      most = std::max(most, samples[run].parameters);
    }
    for (int i = 0; i <= 40; ++i) {
      const double n = least * std::pow(most / least, i / 40.0);
      line.x.push_back(n);
      line.y.push_back(curve.lowest_loss + curve.curvature * std::pow(std::log(n / curve.best_parameters), 2));
    }
    plot.series.push_back(std::move(line));
    plot.series.push_back(std::move(points));
  }
  return plot;
}

Plot fit_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
              const Bootstrap& bootstrap, double level, double most_flops) {
  Plot plot{.title = "The law along its compute-optimal path",
            .x_label = "compute (FLOPs)",
            .y_label = "loss (nats per token)",
            .log_x = true,
            .powers_x = true};
  double least = INFINITY;
  Series points = series("runs fitted", Series::Style::Points, 0);
  for (const Sample& sample : samples) {
    least = std::min(least, sample.flops);
    points.x.push_back(sample.flops);
    points.y.push_back(sample.loss);
  }
  Series held = held_out_bars(held_out);
  for (const Prediction& row : held_out) {
    held.x.push_back(row.run.sample().flops);
    held.y.push_back(row.run.loss);
    most_flops = std::max(most_flops, row.run.sample().flops);
  }
  Series line = series(std::string(form.name()), Series::Style::Line, 2);
  Series band = series(fmt::format("the law, {:g} %", 100 * level), Series::Style::Band, 2);
  for (int i = 0; i <= 30; ++i) {
    const double flops = least * std::pow(most_flops / least, i / 30.0);
    const auto log_loss = [&](std::span<const double> theta) {
      return std::log(compute_optimal(form, theta, flops).loss);
    };
    const Estimate loss = bootstrap.interval(log_loss, level);
    line.x.push_back(flops);
    line.y.push_back(std::exp(loss.value));
    band.x.push_back(flops);
    band.low.push_back(std::exp(loss.low));
    band.high.push_back(std::exp(loss.high));
  }
  plot.series = {band, line, points, held};
  return plot;
}

Plot residual_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
                   std::span<const double> theta) {
  Plot plot{.title = "Residuals",
            .x_label = "compute (FLOPs)",
            .y_label = "measured over fitted (%)",
            .log_x = true,
            .powers_x = true};
  Series points = series("runs fitted", Series::Style::Points, 0), held = held_out_bars(held_out);
  Series zero = series("", Series::Style::Dashed, 5);
  double least = INFINITY, most = 0;
  const auto add = [&](const Sample& sample, Series& to) {
    to.x.push_back(sample.flops);
    to.y.push_back(100 * (sample.loss / form.loss(sample, theta) - 1));
    least = std::min(least, sample.flops);
    most = std::max(most, sample.flops);
  };
  for (const Sample& sample : samples) add(sample, points);
  for (const Prediction& row : held_out) add(row.run.sample(), held);
  zero.x = {least, most};
  zero.y = {0, 0};
  plot.series = {zero, points, held};
  return plot;
}

Plot predicted_plot(const Form& form, const std::vector<Sample>& samples, const std::vector<Prediction>& held_out,
                    std::span<const double> theta) {
  Plot plot{.title = "Predicted against measured",
            .x_label = "measured loss (nats per token)",
            .y_label = "predicted loss (nats per token)"};
  Series points = series("runs fitted", Series::Style::Points, 0);
  Series held = series(held_out.empty() ? "" : "held out, with intervals", Series::Style::ErrorBars, 1);
  Series line = series("", Series::Style::Dashed, 5);
  double least = INFINITY, most = 0;
  for (const Sample& sample : samples) {
    points.x.push_back(sample.loss);
    points.y.push_back(form.loss(sample, theta));
    least = std::min(least, sample.loss);
    most = std::max(most, sample.loss);
  }
  for (const Prediction& row : held_out) {
    held.x.push_back(row.run.loss);
    held.y.push_back(row.loss.value);
    held.low.push_back(row.loss.low);
    held.high.push_back(row.loss.high);
    least = std::min(least, row.run.loss);
  }
  line.x = line.y = {least, most};
  plot.series = {line, points, held};
  return plot;
}

Plot learning_rate_plot(const std::vector<Run>& runs) {
  Plot plot{.title = "Loss against learning rate",
            .x_label = "learning rate",
            .y_label = "loss (nats per token)",
            .log_x = true,
            .powers_x = true};
  std::map<std::tuple<std::string, double, double>, std::map<double, std::vector<double>>> groups;
  for (const Run& run : runs)
    if (run.learning_rate > 0)
      groups[{run.variant, run.parameters, run.steps * run.batch_tokens}][run.learning_rate].push_back(run.loss);
  int colour = 0;
  for (const auto& [group, losses] : groups) {
    if (losses.size() < 3) continue;
    const auto& [variant, parameters, tokens] = group;
    Series line = series(fmt::format("{}{}{} parameters, {} tokens", variant, variant.empty() ? "" : ", ",
                                     short_number(parameters), short_number(tokens)),
                         Series::Style::LinePoints, colour++);
    for (const auto& [rate, values] : losses) {
      double mean = 0;
      for (const double value : values) mean += value / static_cast<double>(values.size());
      line.x.push_back(rate);
      line.y.push_back(mean);
    }
    plot.series.push_back(std::move(line));
  }
  return plot;
}

}  // namespace tessera
