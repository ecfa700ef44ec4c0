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

using json = nlohmann::ordered_json;

HardwareConfig hardware_of(const std::string& name) {
  HardwareConfig hardware;
  const std::string named = "configs/hardware/" + name + ".textproto";
  read_hardware(std::filesystem::exists(name) || !std::filesystem::exists(named) ? name : named, hardware);
  return hardware;
}

void print_row(const char* name, const Estimate& interval) {
  fmt::print("{:<14}{:>14.5g}{:>14.5g}{:>14.5g}\n", name, interval.value, interval.low, interval.high);
}

// By the law of the best settings tried.
json plan_setting(const FittedLaw& law, double Run::*setting, const char* name, const Allocation& at, double level) {
  const std::vector<BestSetting> best = best_settings(law.runs, setting);
  if (best.empty()) {
    const bool stated = std::any_of(law.runs.begin(), law.runs.end(), [&](const Run& run) { return run.*setting > 0; });
    fmt::print("{:<14}not planned: {}\n", name,
               stated ? "no size and budget was tried with several" : "no run of the table states it");
    return nullptr;
  }
  try {
    const PowerLaw power = settings_law(best);
    const Estimate planned = power.observation_at(settings_at(power, at.parameters, at.tokens), level);
    print_row(name, planned);
    return {{"value", planned.value}, {"interval", interval_json(planned)}};
  } catch (const DataError& error) {
    fmt::print("{:<14}not planned: {}\n", name, error.what());
    return nullptr;
  }
}

json plan_time(const ScalingArguments& arguments, const HardwareConfig& hardware, const OptimalPlan& plan) {
  const PredictMfu stated = [&](double, double) { return arguments.mfu; };
  const double devices = arguments.devices > 0 ? arguments.devices : 1;
  const Duration time = duration_of(plan.flops, plan.parameters.value, devices, hardware.bf16_flops(), stated);
  fmt::print("{:.5g} {} hours at {:g} % MFU", time.device_hours, hardware.name(), 100 * time.mfu);
  if (arguments.devices > 0) fmt::print(", {:.4g} days on {:g}", time.days, devices);
  fmt::print("\n");
  json result = {{"hardware", hardware.name()}, {"mfu", time.mfu}, {"gpu_hours", time.device_hours}};
  if (arguments.devices > 0) {
    result["devices"] = devices;
    result["days"] = time.days;
  }
  return result;
}

json print_over_training(const FittedLaw& law, double flops) {
  constexpr double kShares[] = {0.5, 0.25, 0.125};
  json rows = json::array();
  fmt::print("\nsmaller models, trained longer\n{:>14}{:>14}{:>10}{:>26}\n", "parameters", "tokens", "loss",
             "compute for the same loss");
  for (const OverTraining& row : over_training(*law.form, law.fit.theta, flops, kShares)) {
    const double times = row.flops_for_same_loss / flops;
    fmt::print("{:>14.4g}{:>14.4g}{:>10.4f}{:>26}\n", row.same_flops.parameters, row.same_flops.tokens,
               row.same_flops.loss, std::isnan(times) ? "never" : fmt::format("{:.3f} times", times));
    rows.push_back({{"parameters", row.same_flops.parameters},
                    {"tokens", row.same_flops.tokens},
                    {"loss", row.same_flops.loss},
                    {"flops_for_same_loss", std::isnan(times) ? json() : json(row.flops_for_same_loss)},
                    {"tokens_for_same_loss", std::isnan(times) ? json() : json(row.tokens_for_same_loss)}});
  }
  return rows;
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
  fmt::print("{:<14}{:>14}{:>14}{:>14}\n", "", "value", fmt::format("{:g} % from", 100 * arguments.level), "to");
  print_row("parameters", plan.parameters);
  print_row("tokens", plan.tokens);
  const Allocation best{plan.parameters.value, plan.tokens.value, plan.loss.value};
  const json batch = plan_setting(law, &Run::batch_tokens, "batch_tokens", best, arguments.level);
  const json rate = plan_setting(law, &Run::learning_rate, "learning_rate", best, arguments.level);
  print_row("loss", plan.loss);
  print_row("loss of a run", plan.run_loss);
  const json time = arguments.hardware.empty() ? json() : plan_time(arguments, hardware, plan);
  const json trades = print_over_training(law, flops);

  double largest = 0;
  for (const Sample& sample : law.samples) largest = std::max(largest, 6 * sample.parameters * sample.tokens);
  const NextRun next = next_run(*law.form, law.samples, law.fit.theta, Sample(best.parameters, best.tokens, 1),
                                arguments.next_flops > 0 ? arguments.next_flops : largest);
  fmt::print(
      "\nnext run: {:.4g} parameters, {:.4g} tokens ({:.4g} FLOPs) would narrow the interval of the loss by {:.1f} %\n",
      next.parameters, next.tokens, next.flops, 100 * (1 - next.width_left));
  if (arguments.as_json)
    print_json({{"flops", flops},
                {"parameters", plan.parameters.value},
                {"tokens", plan.tokens.value},
                {"loss", plan.loss.value},
                {"batch_tokens", batch},
                {"learning_rate", rate},
                {"intervals",
                 {{"parameters", interval_json(plan.parameters)},
                  {"tokens", interval_json(plan.tokens)},
                  {"loss", interval_json(plan.loss)},
                  {"run_loss", interval_json(plan.run_loss)}}},
                {"extrapolation", plan.extrapolation},
                {"time", time},
                {"over_training", trades},
                {"next_run",
                 {{"parameters", next.parameters},
                  {"tokens", next.tokens},
                  {"flops", next.flops},
                  {"width_left", next.width_left}}}});
  return 0;
}

}  // namespace tessera
