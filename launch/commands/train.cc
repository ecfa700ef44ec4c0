// tessera train: alone or under mpirun; resumes by itself when the run directory has a valid checkpoint.
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/run_arguments.h"
#include "launch/process/failpoints.h"
#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "launch/run/training_run.h"

namespace tessera {

void add_train(Command& program) {
  struct Arguments {
    RunArguments run;
    TrainOptions options;
  };
  const auto arguments = std::make_shared<Arguments>();
  Command command = program.add_command("train", "Train a model; goes on where the run directory left off");
  arguments->run.add_to(command);
  command
      .add_option("--allow-change", &arguments->options.allow_change,
                  "Config section that may differ from the checkpoint's: model, data, optimizer or lr_schedule")
      .one_each_time();
  command.runs([arguments] {
    arguments->options.failpoint = failpoint_of(process_environment());
    return run_with_config(arguments->run, Surroundings::Data::Needed,
                           [&](RunConfig& config, const Layout& layout, Session& session) {
                             return TrainingRun(config, layout, session, arguments->options).run();
                           });
  });
}

}  // namespace tessera
