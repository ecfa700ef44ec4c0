// tessera scaling compare: two variants over scales.
#include "scaling/compare.h"

#include <algorithm>
#include <cmath>

#include "launch/commands/scaling/arguments.h"
#include "scaling/law/forms.h"
#include "tensor/check.h"

namespace tessera {

int run_scaling_compare(const ScalingArguments& arguments) {
  const std::unique_ptr<Form> form = make_form(arguments.form);
  std::vector<Sample> samples;
  double flops = arguments.flops, most = 0;
  for (const Run& run : load_runs(arguments)) {
    const auto found = std::find(arguments.variants.begin(), arguments.variants.end(), run.variant);
    if (found == arguments.variants.end()) continue;
    samples.push_back(run.sample());
    samples.back().variant = static_cast<size_t>(found - arguments.variants.begin());
    most = std::max(most, 6 * run.parameters * run.tokens);
  }
  if (arguments.variants[0] == arguments.variants[1])
    throw UsageError(fmt::format("--variants {0} {0}: give two different ones", arguments.variants[0]));
  if (flops == 0) flops = most;
  const Comparison found =
      compare_variants(*form, arguments.variants, samples, flops, arguments.level,
                       {.replicates = arguments.replicates, .seed = arguments.seed, .fit = {.delta = arguments.delta}});
  fmt::print("{} against {}, by {}: {} irreducible loss (corrected Akaike {:.2f} shared, {:.2f} apart)\n",
             arguments.variants[0], arguments.variants[1], form->name(), found.shared ? "one" : "each its own",
             found.akaike_shared, found.akaike_apart);
  print_extrapolation(flops / most);
  fmt::print("at {:.4g} FLOPs, {} is worth {:.4f} times the compute of {}; {:g} % from {:.4f} to {:.4f}\n", flops,
             arguments.variants[1], found.gain.value, arguments.variants[0], 100 * arguments.level, found.gain.low,
             found.gain.high);
  if (std::isnan(found.crossing.value))
    fmt::print("no crossing between 1e12 and 1e30 FLOPs; {:.0f} % of the refits have one\n",
               100 * found.crossing_share);
  else
    fmt::print("they cross at {:.3g} FLOPs; {:g} % from {:.3g} to {:.3g}, in {:.0f} % of the refits\n",
               found.crossing.value, 100 * arguments.level, found.crossing.low, found.crossing.high,
               100 * found.crossing_share);
  if (arguments.as_json)
    print_json(Json::Object{{"flops", flops},
                            {"shared_irreducible_loss", found.shared},
                            {"gain", found.gain.value},
                            {"gain_interval", interval_json(found.gain)},
                            {"crossing", found.crossing.value},
                            {"crossing_interval", interval_json(found.crossing)},
                            {"crossing_share", found.crossing_share}});
  return 0;
}

}  // namespace tessera
