// tessera eval: validation loss of a checkpoint, on as many ranks as it is started with.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/config/override.h"
#include "launch/config/resolve.h"
#include "launch/process/session.h"
#include "launch/run.pb.h"
#include "launch/run/gpu.h"
#include "launch/run/saved_run.h"
#include "launch/run/validation.h"

namespace tessera {
namespace {

struct EvalArguments {
  std::string checkpoint;
  std::vector<std::string> overrides;
  int64_t samples = 0;
  bool as_json = false;
};

// Says at most every few seconds, on standard error, how far an evaluation is.
class EvalProgress {
 public:
  void operator()(const std::string& set, int64_t batch, int64_t batches) {
    const auto now = std::chrono::steady_clock::now();
    if (batch == 0) begin_ = last_ = now;
    if (now - last_ < std::chrono::seconds(5)) return;
    last_ = now;
    const std::chrono::duration<double> took = now - begin_;
    fmt::print(stderr, "{}: {} of {} batches, about {:.0f} s to go\n", set, batch, batches,
               took.count() / static_cast<double>(batch) * static_cast<double>(batches - batch));
  }

 private:
  std::chrono::steady_clock::time_point begin_, last_;
};

int run_eval(const EvalArguments& arguments) {
  set_gpu_environment(0);
  return run_session({}, [&](Session& session) {
    RunConfig config;
    CheckpointInfo info;
    const std::string checkpoint = find_checkpoint(session.world, arguments.checkpoint);
    read_checkpoint_config(checkpoint, config, info);
    config.clear_parallel();  // the layout and the device of the run that saved it do not matter here
    config.mutable_run()->set_device(RunSection::AUTO);
    Origins origins;
    Problems problems;
    for (const std::string& text : arguments.overrides) apply_override(text, config, origins, problems);
    problems.throw_if_any();
    Surroundings surroundings{.world_size = session.world.size()};
    find_gpus(surroundings);
    const Layout layout = resolve(config, origins, surroundings);
    if (config.data().validation_size() == 0) {
      throw UsageError("the config has no data.validation: give one with --set data.validation=PATH");
    }
    std::string fingerprint = saved_tokenizer(checkpoint, info);
    if (config.data().has_tokenizer())
      fingerprint = open_run_tokenizer(config.data().tokenizer(), fingerprint).fingerprint();
    Assembly parts(config, layout, session);
    load_weights(session.world, checkpoint, parts);
    const bool speaks = session.world.rank() == 0;
    if (speaks) fmt::print("{}  step {}\n", checkpoint, info.step);
    Table sets({{"dataset", Column::Align::Left, 24},
                {"validation_loss", Column::Align::Right},
                {"perplexity", Column::Align::Right, 14},
                {"tokens", Column::Align::Right, 14}},
               speaks ? Table::Printing::Rows : Table::Printing::Silent);
    const ValidationProgress progress = speaks ? ValidationProgress(EvalProgress()) : nullptr;
    for (ValidationSet& set : open_validation(config, parts, arguments.samples, fingerprint, progress)) {
      const EvaluationResult result = evaluate(parts, config, set);
      sets.add({set.name, real(result.loss, ".4f"), real(std::exp(result.loss), ".3f"), result.targets});
    }
    if (speaks && arguments.as_json)
      print_json(Json::Object{{"checkpoint", checkpoint}, {"step", info.step}, {"sets", sets.json()}});
    return 0;
  });
}

}  // namespace

void add_eval(Command& program) {
  const auto arguments = std::make_shared<EvalArguments>();
  Command command = program.add_command("eval", "Validation loss of a checkpoint");
  command.add_option("CHECKPOINT", &arguments->checkpoint, "A checkpoint, or a run directory: its newest").required();
  command.add_option("--set", &arguments->overrides, "Override a field of the run's config: path=value")
      .value_name("PATH=VALUE")
      .one_each_time();
  command.add_option("--samples", &arguments->samples, "Samples of each validation source; 0: all").not_negative();
  command.add_json(arguments->as_json);
  command.runs([arguments] { return run_eval(*arguments); });
}

}  // namespace tessera
