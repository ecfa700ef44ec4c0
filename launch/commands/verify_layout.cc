// tessera verify-layout: proves, for the user's own config, that layouts compute what one rank computes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/config/override.h"
#include "launch/config/read.h"
#include "launch/config/resolve.h"
#include "launch/proof/layout_proof.h"
#include "launch/proof/shrink.h"
#include "launch/run.pb.h"
#include "scaling/planning/schedule_choice.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr int64_t kVocabulary = 512;

struct VerifyArguments {
  std::string config;
  std::vector<std::string> overrides, layouts;
  int64_t steps = 3;
  bool shrink = false, as_json = false;
};

// A layout to be proved: what the user called it, and the config that asks for it.
struct Candidate {
  std::string name;
  RunConfig config;
  Layout layout = {};  // once the config is resolved
};

int ranks_of(const ParallelConfig& parallel) {
  return parallel.pp() * std::max(1, parallel.dp()) * parallel.cp() * parallel.tp();
}

// "tp=2,pp=2,schedule=zb-h1": fields of the parallel section.
Candidate parse_layout(const std::string& text, const RunConfig& base, Origins& origins, Problems& problems) {
  Candidate layout{.name = text, .config = base};
  layout.config.clear_parallel();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    apply_override("parallel." + text.substr(begin, end - begin), layout.config, origins, problems);
    begin = end + 1;
  }
  return layout;
}

std::vector<Candidate> read_layouts(const VerifyArguments& arguments, const RunConfig& config, Origins& origins) {
  Problems problems;
  std::vector<Candidate> layouts;
  for (const std::string& text : arguments.layouts) layouts.push_back(parse_layout(text, config, origins, problems));
  problems.throw_if_any();
  if (layouts.empty()) layouts.push_back({.name = "the config's", .config = config});
  return layouts;
}

Layout prepare(RunConfig& config, const Origins& origins) {
  config.mutable_run()->set_compute_dtype(RunSection::F64);
  config.mutable_run()->set_device(RunSection::CPU);
  config.mutable_data()->clear_train();
  config.mutable_data()->clear_validation();
  config.mutable_data()->clear_tokenizer();
  return resolve(config, origins, {.world_size = ranks_of(config.parallel()), .data = Surroundings::Data::NotNeeded});
}

std::string what_differs(const Candidate& layout, const LayoutDifference& difference, int64_t steps) {
  const std::string claim = fmt::format("{} does not compute what one rank computes: ", layout.name);
  if (!difference.first_gradient.empty())
    return claim +
           fmt::format("at step {} the gradient of {} differs", difference.first_step, difference.first_gradient);
  if (!difference.first_state.empty())
    return claim + fmt::format("{} differs after {}", difference.first_state, counted(steps, "step"));
  return claim + "loss or gradient norm differs";
}

// Throws what `train` would throw for these layouts: a smaller config may fit a layout that the real one does not.
void check_whole(std::vector<Candidate> layouts, const Origins& origins) {
  for (Candidate& layout : layouts) {
    RunConfig& config = layout.config;
    if (!config.model().has_vocab_size()) config.mutable_model()->set_vocab_size(kVocabulary);
    // A schedule from a file is proved at its own number of microbatches.
    if (const int microbatches = ScheduleChoice(config.parallel()).file_microbatches(); microbatches > 0)
      config.mutable_data()->set_global_batch_size(std::max(1, config.parallel().dp()) *
                                                   config.data().micro_batch_size() * microbatches);
    prepare(config, origins);
  }
}

int run_verify(const VerifyArguments& arguments) {
  RunConfig config;
  Origins origins;
  read_config(arguments.config, arguments.overrides, config, origins);
  std::vector<Candidate> layouts = read_layouts(arguments, config, origins);
  if (arguments.shrink) {
    check_whole(layouts, origins);
    std::vector<RunConfig> all;
    for (const Candidate& layout : layouts) all.push_back(layout.config);
    const RunConfig small = shrunk(config, all);
    fmt::print("cut: {}\nkept: {}\n", fmt::join(changes(config, small), ", "), fmt::join(kept(config, small), ", "));
    for (Candidate& layout : layouts) {
      ParallelConfig parallel = layout.config.parallel();
      // Blocks by number mean nothing in a model of other size.
      parallel.clear_blocks_per_stage();
      if (parallel.recompute().find(':') != std::string::npos)
        parallel.set_recompute(parallel.recompute().find("full") != std::string::npos ? "full" : "selective");
      parallel.set_context_exchange(stretched_exchange(parallel.context_exchange(), config.model().num_hidden_layers(),
                                                       small.model().num_hidden_layers()));
      layout.config = small;
      *layout.config.mutable_parallel() = parallel;
    }
    config = small;
    origins = {};
  }
  if (!config.model().has_vocab_size()) {
    // The tokenizer would say; its size does not matter to the proof.
    fmt::print("model.vocab_size is not set: {} is taken\n", kVocabulary);
    for (Candidate& layout : layouts) layout.config.mutable_model()->set_vocab_size(kVocabulary);
    config.mutable_model()->set_vocab_size(kVocabulary);
  }
  for (Candidate& layout : layouts) layout.layout = prepare(layout.config, origins);
  config.clear_parallel();
  const Layout alone = prepare(config, origins);

  fmt::print("{} in F64 on random documents; differences from one rank, at most {:.0e}\n",
             counted(arguments.steps, "step"), kLayoutTolerance);
  Table table({{"layout", Column::Align::Left, 40},
               {"ranks", Column::Align::Right, 6},
               {"loss", Column::Align::Right, 9},
               {"grad_norm", Column::Align::Right, 9},
               {"gradient", Column::Align::Right, 9},
               {"state", Column::Align::Right, 9},
               {"equal", Column::Align::Left}},
              Table::Printing::Rows);
  const RunRecord one = record_run(config, alone, arguments.steps);
  std::string first_bad;
  for (const Candidate& layout : layouts) {
    const LayoutDifference difference = compare_runs(one, record_run(layout.config, layout.layout, arguments.steps));
    const std::string& parameter =
        difference.first_gradient.empty() ? difference.first_state : difference.first_gradient;
    table.add({layout.name,
               ranks_of(layout.config.parallel()),
               real(difference.loss, ".1e"),
               real(difference.norm, ".1e"),
               real(difference.gradient, ".1e"),
               real(difference.state, ".1e"),
               {difference.equal(), difference.equal() ? "equal" : "DIFFERS"}},
              {.members = Json::Object{{"parameter", parameter}}});
    if (!difference.equal() && first_bad.empty()) first_bad = what_differs(layout, difference, arguments.steps);
  }
  if (arguments.as_json) print_json(Json::Object{{"layouts", table.json()}, {"equal", first_bad.empty()}});
  if (!first_bad.empty()) throw NumericalError(first_bad);
  return 0;
}

}  // namespace

void add_verify_layout(Command& program) {
  const auto arguments = std::make_shared<VerifyArguments>();
  Command command = program.add_command("verify-layout", "Prove that layouts compute what one rank computes, in F64");
  command.add_option("CONFIG", &arguments->config, "Run config: protobuf text format (configs/)").required();
  command.add_option("--set", &arguments->overrides, "Override a field: path=value")
      .value_name("PATH=VALUE")
      .one_each_time();
  command
      .add_option("--layout", &arguments->layouts,
                  "Fields of the parallel section, e.g. tp=2,pp=2,schedule=zb-h1; may be given several times. Default: "
                  "the config's own")
      .value_name("FIELD=VALUE,...");
  command.add_option("--steps", &arguments->steps, "Optimizer steps").shows_default().positive();
  command.add_flag("--shrink", arguments->shrink, "Cut sizes down, keeping the config's shape, to run in seconds");
  command.add_json(arguments->as_json);
  command.runs([arguments] { return run_verify(*arguments); });
}

}  // namespace tessera
