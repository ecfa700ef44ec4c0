// tessera scaling plan: what to train for a budget.
#include "scaling/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "launch/commands/scaling/arguments.h"
#include "scaling/hardware.h"
#include "scaling/hardware.pb.h"
#include "scaling/settings.h"
#include "tensor/check.h"

namespace tessera {
namespace {

HardwareConfig hardware_of(const std::string& name) {
  HardwareConfig hardware;
  const std::string named = "configs/hardware/" + name + ".textproto";
  read_hardware(std::filesystem::exists(name) || !std::filesystem::exists(named) ? name : named, hardware);
  return hardware;
}

// By the law of the best settings tried; null where there is none.
Json plan_setting(const FittedLaw& law, double Run::*setting, const char* name, const Allocation& at, double level,
                  EstimateTable& table) {
  const std::vector<BestSetting> best = best_settings(law.runs, setting);
  if (best.empty()) {
    const bool stated = std::any_of(law.runs.begin(), law.runs.end(), [&](const Run& run) { return run.*setting > 0; });
    table.add_missing(name, stated ? "no size and budget was tried with several" : "no run of the table states it");
    return {};
  }
  try {
    const PowerLaw power = settings_law(best);
    const Estimate planned = power.observation_at(settings_at(power, at.parameters, at.tokens), level);
    table.add(name, planned);
    return Json::Object{{"value", planned.value}, {"interval", interval_json(planned)}};
  } catch (const DataError& error) {
    table.add_missing(name, error.what());
    return {};
  }
}

Json plan_time(const ScalingArguments& arguments, const HardwareConfig& hardware, const OptimalPlan& plan) {
  const PredictMfu stated = [&](double, double) { return arguments.mfu; };
  const double devices = arguments.devices > 0 ? arguments.devices : 1;
  const Duration time = duration_of(plan.flops, plan.parameters.value, devices, hardware.bf16_flops(), stated);
  Facts facts;
  facts.add("hardware", hardware.name()).add("mfu", real(time.mfu, ".3g"));
  facts.add("gpu_hours", real(time.device_hours, ".5g"));
  if (arguments.devices > 0) facts.add("devices", real(devices, "g")).add("days", real(time.days, ".4g"));
  facts.print();
  return facts.json();
}

Json report_over_training(const FittedLaw& law, double flops) {
  constexpr double kShares[] = {0.5, 0.25, 0.125};
  Table table({{"parameters"}, {"tokens"}, {"loss"}, {"flops_for_same_loss"}, {"tokens_for_same_loss"}});
  for (const OverTraining& row : over_training(*law.form, law.fit.theta, flops, kShares)) {
    const double times = row.flops_for_same_loss / flops;
    const bool never = std::isnan(times);
    table.add({real(row.same_flops.parameters, ".4g"), real(row.same_flops.tokens, ".4g"),
               real(row.same_flops.loss, ".4f"),
               never ? Cell(Json(), "never") : Cell(row.flops_for_same_loss, fmt::format("{:.3f} times", times)),
               never ? Cell(Json(), "never") : real(row.tokens_for_same_loss, ".4g")});
  }
  fmt::print("\nsmaller models, trained longer, at the same compute; and what brings them to the same loss\n");
  table.print();
  return table.json();
}

}  // namespace

int run_scaling_plan(const ScalingArguments& arguments) {
  HardwareConfig hardware;
  if (!arguments.hardware.empty()) hardware = hardware_of(arguments.hardware);
  double flops = arguments.flops;
  if (arguments.gpu_hours > 0) {
    if (arguments.hardware.empty()) throw UsageError("--gpu-hours: say of what with --hardware, such as h100");
    flops = arguments.gpu_hours * 3600 * hardware.bf16_flops() * arguments.mfu;
  }
  if (!(flops > 0)) throw UsageError("scaling plan takes a budget: --flops, or --gpu-hours with --hardware");
  if (arguments.devices > 0 && arguments.hardware.empty())
    throw UsageError("--devices: say which with --hardware, such as h100");
  if (flops < 1e6) throw UsageError(fmt::format("--flops {:g}: a budget under 1e6 trains nothing", flops));

  const FittedLaw law = fit_law(arguments);
  const OptimalPlan plan =
      plan_for_flops(*law.form, law.samples, law.bootstrap, flops, arguments.level, arguments.unique_tokens);
  fmt::print("{:.4g} FLOPs, by {} fitted to {} runs\n", flops, law.form->name(), law.samples.size());
  print_extrapolation(plan.extrapolation);
  EstimateTable estimates(arguments.level);
  estimates.add("parameters", plan.parameters);
  estimates.add("tokens", plan.tokens);
  const Allocation best{plan.parameters.value, plan.tokens.value, plan.loss.value};
  const Json batch = plan_setting(law, &Run::batch_tokens, "batch_tokens", best, arguments.level, estimates);
  const Json rate = plan_setting(law, &Run::learning_rate, "learning_rate", best, arguments.level, estimates);
  estimates.add("loss", plan.loss);
  estimates.add("run_loss", plan.run_loss);
  estimates.print();
  const Json time = arguments.hardware.empty() ? Json() : plan_time(arguments, hardware, plan);
  const Json trades = report_over_training(law, flops);

  double largest = 0;
  for (const Sample& sample : law.samples) largest = std::max(largest, 6 * sample.parameters * sample.tokens);
  const NextRun next = next_run(*law.form, law.samples, law.fit.theta, Sample(best.parameters, best.tokens, 1),
                                arguments.next_flops > 0 ? arguments.next_flops : largest);
  fmt::print(
      "\nnext run: {:.4g} parameters, {:.4g} tokens ({:.4g} FLOPs) would narrow the interval of the loss by {:.1f} %\n",
      next.parameters, next.tokens, next.flops, 100 * (1 - next.width_left));
  if (arguments.as_json)
    print_json(Json::Object{{"flops", flops},
                            {"parameters", plan.parameters.value},
                            {"tokens", plan.tokens.value},
                            {"loss", plan.loss.value},
                            {"batch_tokens", batch},
                            {"learning_rate", rate},
                            {"intervals", estimates.intervals()},
                            {"extrapolation", plan.extrapolation},
                            {"time", time},
                            {"over_training", trades},
                            {"next_run", Json::Object{{"parameters", next.parameters},
                                                      {"tokens", next.tokens},
                                                      {"flops", next.flops},
                                                      {"width_left", next.width_left}}}});
  return 0;
}

}  // namespace tessera
