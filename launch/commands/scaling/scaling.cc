// tessera scaling: sweeps, laws of the loss from finished runs, and what follows from them.
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/scaling/arguments.h"

namespace tessera {
namespace {

Command add(Command& scaling, const char* name, const char* help, int (*body)(const ScalingArguments&),
            const std::shared_ptr<ScalingArguments>& arguments) {
  Command command = scaling.add_command(name, help);
  arguments->add_to(command);
  command.runs([arguments, body] { return body(*arguments); });
  return command;
}

void add_sweep(Command scaling) {
  const auto arguments = std::make_shared<SweepArguments>();
  Command sweep = scaling.add_command("sweep", "Make a ladder of runs; goes on where it was stopped");
  sweep.add_option("SWEEP", &arguments->file, "Sweep: protobuf text format (scaling/sweep.proto, configs/sweeps/)")
      .required();
  sweep.add_option("--set", &arguments->overrides, "Override a field of every run: path=value")
      .value_name("PATH=VALUE")
      .one_each_time();
  sweep.add_option("--dir", &arguments->directory, "Instead of the file's");
  sweep.add_option("--only", &arguments->only, "Only these runs, and the trunks that they need");
  sweep.add_option("--concurrent", &arguments->concurrent, "Runs at once; the file's").positive();
  const Option dry = sweep.add_flag("--dry-run", arguments->dry_run, "Print the ladder, and start nothing");
  sweep.add_flag("--measure", arguments->measure, "With --dry-run: time a few steps of each size").needs(dry);
  sweep.add_flag("--slurm", arguments->slurm, "Write a job array into the sweep's directory, and start nothing")
      .excludes(dry);
  sweep.add_json(arguments->as_json);
  sweep.runs([arguments] { return run_scaling_sweep(*arguments); });
}

void add_coordcheck(Command scaling) {
  const auto arguments = std::make_shared<CoordcheckArguments>();
  Command check = scaling.add_command("coordcheck", "Whether steps change activations alike at every width");
  check.add_option("CONFIG", &arguments->config, "Run config; no data set is needed").required();
  check.add_option("--set", &arguments->overrides, "Override a field: path=value")
      .value_name("PATH=VALUE")
      .one_each_time();
  check.add_option("--widths", &arguments->widths, "Of model.hidden_size; heads and other sizes grow along")
      .shows_default();
  check.add_option("--steps", &arguments->steps, "On one fixed batch").shows_default().positive();
  check.add_option("--seeds", &arguments->seeds, "Averaged over").shows_default().positive();
  check.add_option("--tolerance", &arguments->tolerance, "Of slopes; exit code 17 beyond").shows_default().positive();
  check.add_option("--plot", &arguments->picture, "A PNG");
  check.add_json(arguments->as_json);
  check.runs([arguments] { return run_scaling_coordcheck(*arguments); });
}

}  // namespace

void add_scaling(Command& program) {
  Command scaling = program.add_group("scaling", "Fit scaling laws to runs, and plan larger ones");
  const auto arguments = std::make_shared<ScalingArguments>();
  add_sweep(scaling);
  add_coordcheck(scaling);

  add(scaling, "fit", "Fit a law; --form also takes isoflop, power, tissue, multi-power, critical-batch, settings",
      run_scaling_fit, arguments);

  Command predict = add(scaling, "predict", "The loss of a run, with intervals", run_scaling_predict, arguments);
  predict.add_option("--parameters", &arguments->parameters, "Of the model, counted as in the table")
      .required()
      .positive();
  predict.add_option("--tokens", &arguments->tokens, "It is trained on").required().positive();
  predict.add_option("--unique-tokens", &arguments->unique_tokens, "Of these, seen at least once").positive();

  Command plan =
      add(scaling, "plan", "What to train for a budget, and what run to make next", run_scaling_plan, arguments);
  const Option flops =
      plan.add_option("--flops", &arguments->flops, "The budget; 6 FLOPs a parameter and token").positive();
  plan.add_option("--gpu-hours", &arguments->gpu_hours, "The budget in hours of --hardware at --mfu")
      .positive()
      .excludes(flops);
  plan.add_option("--hardware", &arguments->hardware, "A description, or the name of one in configs/hardware/");
  plan.add_option("--devices", &arguments->devices, "To say how many days it takes").positive();
  plan.add_option("--mfu", &arguments->mfu, "Share of peak that training reaches").within(0.001, 1.0);
  plan.add_option("--unique-tokens", &arguments->unique_tokens, "All there are; more are repetitions").positive();
  plan.add_option("--next-flops", &arguments->next_flops, "The most that the next small run may cost; as the largest")
      .positive();

  Command report = add(scaling, "report", "One HTML page with pictures: curves, law, what was held out, plan",
                       run_scaling_report, arguments);
  report.add_option("--output", &arguments->output, "Directory of report.html and the PNGs").shows_default();
  report.add_option("--title", &arguments->title, "Of the page").shows_default();
  report.add_option("--flops", &arguments->flops, "What to plan for; 100 times the largest run").positive();

  Command compare =
      add(scaling, "compare", "Two variants: gain in compute, and where they cross", run_scaling_compare, arguments);
  compare.add_option("--variants", &arguments->variants, "Two names in the column variant").required().words(2);
  compare.add_option("--flops", &arguments->flops, "Where the gain is stated; the largest run's").positive();
}

}  // namespace tessera
