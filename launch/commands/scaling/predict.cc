// tessera scaling predict: the loss that a run would reach.
#include <algorithm>
#include <cmath>

#include "launch/commands/scaling/arguments.h"

namespace tessera {

int run_scaling_predict(const ScalingArguments& arguments) {
  const FittedLaw law = fit_law(arguments);
  const Sample at(arguments.parameters, arguments.tokens, 1, arguments.unique_tokens);
  const Estimate log_loss = law.bootstrap.interval(
      [&](std::span<const double> theta) { return law.form->log_loss(at, theta, {}); }, arguments.level);
  const Estimate loss{std::exp(log_loss.value), std::exp(log_loss.low), std::exp(log_loss.high)};
  const Estimate run = law.bootstrap.run_interval(*law.form, at, arguments.level);
  double most = 0;
  for (const Sample& sample : law.samples) most = std::max(most, sample.parameters * sample.tokens);
  const double times = at.parameters * at.tokens / most;
  fmt::print("{:.4g} parameters, {:.4g} tokens, {:.4g} FLOPs, by {} fitted to {}\n", at.parameters, at.tokens,
             6 * at.parameters * at.tokens, law.form->name(), counted(static_cast<int64_t>(law.samples.size()), "run"));
  print_extrapolation(times);
  fmt::print("loss {:.5f}; {:g} %: the law from {:.5f} to {:.5f}, a run from {:.5f} to {:.5f}\n", loss.value,
             100 * arguments.level, loss.low, loss.high, run.low, run.high);
  if (arguments.as_json)
    print_json(Json::Object{{"loss", loss.value},
                            {"interval", interval_json(loss)},
                            {"run_interval", interval_json(run)},
                            {"level", arguments.level},
                            {"parameters", at.parameters},
                            {"tokens", at.tokens},
                            {"flops", 6 * at.parameters * at.tokens},
                            {"extrapolation", times}});
  return 0;
}

}  // namespace tessera
