#include "scaling/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kOneBudget = 1.02;
constexpr double kVaries = 1.05;

struct Cell {
  double parameters, tokens;
  std::map<double, std::vector<double>> losses;  // by setting
};

BestSetting best_of(const Cell& cell) {
  std::vector<double> x, y;
  for (const auto& [value, losses] : cell.losses) {
    double sum = 0;
    for (const double loss : losses) sum += loss;
    x.push_back(std::log(value));
    y.push_back(sum / static_cast<double>(losses.size()));
  }
  const auto i = static_cast<size_t>(std::min_element(y.begin(), y.end()) - y.begin());
  BestSetting best{cell.parameters, cell.tokens, std::exp(x[i]), y[i], static_cast<int>(x.size()), false};
  if (i == 0 || i + 1 == x.size()) return best;
  best.inside = true;
  // Newton's form of the parabola through three points.
  const double left = (y[i] - y[i - 1]) / (x[i] - x[i - 1]), right = (y[i + 1] - y[i]) / (x[i + 1] - x[i]);
  const double bend = (right - left) / (x[i + 1] - x[i - 1]);
  const double vertex = (x[i - 1] + x[i]) / 2 - left / (2 * bend);
  if (bend > 0) {
    best.value = std::exp(vertex);
    best.loss = y[i - 1] + (vertex - x[i - 1]) * (left + bend * (vertex - x[i]));
  }
  return best;
}

}  // namespace

std::vector<BestSetting> best_settings(const std::vector<Run>& runs, double Run::*setting) {
  std::vector<Cell> cells;
  for (const Run& run : runs) {
    if (!(run.*setting > 0)) continue;
    auto cell = std::find_if(cells.begin(), cells.end(), [&](const Cell& c) {
      return c.parameters == run.parameters &&
             std::max(c.tokens, run.tokens) < kOneBudget * std::min(c.tokens, run.tokens);
    });
    if (cell == cells.end()) cell = cells.insert(cells.end(), {run.parameters, run.tokens, {}});
    cell->losses[run.*setting].push_back(run.loss);
  }
  std::vector<BestSetting> best;
  for (const Cell& cell : cells)
    if (cell.losses.size() > 1) best.push_back(best_of(cell));
  return best;
}

PowerLaw settings_law(const std::vector<BestSetting>& best) {
  std::vector<std::vector<double>> n, d, both;
  std::vector<double> value;
  for (const BestSetting& one : best) {
    if (!one.inside) continue;
    n.push_back({one.parameters});
    d.push_back({one.tokens});
    both.push_back({one.parameters, one.tokens});
    value.push_back(one.value);
  }
  if (value.empty())
    throw DataError(
        fmt::format("of {} sizes and budgets with several settings, none was tried on both sides of its "
                    "best",
                    best.size()));
  const auto varies = [](const std::vector<std::vector<double>>& x) {
    const auto [least, most] = std::minmax_element(x.begin(), x.end());
    return (*most)[0] > kVaries * (*least)[0];
  };
  if (!varies(d)) return PowerLaw({"N"}, n, value);
  if (!varies(n)) return PowerLaw({"D"}, d, value);
  return PowerLaw({"N", "D"}, both, value);
}

std::vector<double> settings_at(const PowerLaw& law, double parameters, double tokens) {
  std::vector<double> x;
  for (const std::string& name : law.names()) x.push_back(name == "N" ? parameters : tokens);
  return x;
}

}  // namespace tessera
