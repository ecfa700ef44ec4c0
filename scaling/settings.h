// The settings (learning rate, batch) that were best for each size and budget, and their laws.
#pragma once

#include <vector>

#include "scaling/law/power_law.h"
#include "scaling/runs.h"

namespace tessera {

struct BestSetting {
  double parameters = 0, tokens = 0;
  double value = 0;  // vertex of the parabola of loss in log setting through the best and its neighbours
  double loss = 0;   // there
  int tried = 0;
  bool inside = false;  // settings on both sides of the best were tried; else the best may lie beyond
};

// One for each (N, D) at which more than one value was tried; runs that state none (0) do not count. Of equal settings
// (seeds) the mean loss counts. Tokens that differ by less than 2 % are one budget.
std::vector<BestSetting> best_settings(const std::vector<Run>& runs, double Run::*setting);

// setting = c N^p D^q over the best that lie inside; where one of N and D hardly varies, of the other alone. Throws
// DataError when too few do.
PowerLaw settings_law(const std::vector<BestSetting>& best);
// What to ask the law for.
std::vector<double> settings_at(const PowerLaw& law, double parameters, double tokens);

}  // namespace tessera
