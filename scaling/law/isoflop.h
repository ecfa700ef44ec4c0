// Hoffmann et al. 2022, approach 2: at each budget of FLOPs a parabola of loss in log N, its lowest point N_opt, and
// power laws N_opt = c C^a, D_opt = c' C^b over the budgets.
//
// Biased even on clean data: a curve of Chinchilla's law at one budget is not a parabola, so that the lowest point, and
// with it the exponents, depend on how far and how symmetrically the sizes were spread. kIsoFlopWarning says so, and
// whoever prints a result prints it too; a fit of the law itself (fit/fit.h) has no such bias.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "scaling/fit/form.h"
#include "scaling/law/power_law.h"

namespace tessera {

inline constexpr std::string_view kIsoFlopWarning =
    "isoFLOP parabolas are biased even on clean data: a curve of the law at one budget is no parabola, and its lowest "
    "point moves with the spread of the sizes. Prefer --form chinchilla for decisions.";

struct IsoFlopCurve {
  double flops = 0;            // geometric mean of the runs'
  std::vector<size_t> runs;    // their places in the samples
  double curvature = 0;        // loss = lowest_loss + curvature (log N - log N_opt)^2
  double best_parameters = 0;  // N_opt
  double best_tokens = 0;      // flops / (6 N_opt), or what the runs' counts say for 6
  double lowest_loss = 0;
  bool inside = false;  // N_opt lies between the smallest and the largest size tried
};

// Groups runs whose FLOPs differ by less than a tenth. Throws DataError when fewer than two budgets have three sizes
// each and a lowest point inside them (which budgets, and what was wrong with each).
std::vector<IsoFlopCurve> isoflop_curves(std::span<const Sample> samples);

struct IsoFlopLaw {
  PowerLaw parameters, tokens;  // of C
};

IsoFlopLaw isoflop_law(std::span<const IsoFlopCurve> curves);

}  // namespace tessera
