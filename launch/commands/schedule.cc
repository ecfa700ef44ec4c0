// tessera schedule: generates, searches or reads a pipeline schedule, checks it, and shows what it costs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/config/ranges.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "scaling/planning/schedule_picture.h"
#include "scaling/planning/schedule_search.h"
#include "scaling/planning/simulate.h"
#include "tensor/check.h"

namespace tessera {
namespace {

struct Arguments {
  std::string kind, file;
  int stages = 0, microbatches = 0, chunks = 0, group = 0;
  std::vector<double> forward = {1}, backward_input = {1}, backward_weight = {1};
  double latency = 0, norm = 0, step = 0;
  double memory_limit = 0;
  bool search = false;
  std::string save, svg;
  bool as_json = false;
};

void require(bool holds, const std::string& message) {
  if (!holds) throw UsageError("schedule: " + message);
}

ScheduleCosts costs_of(const Arguments& arguments, int stages, int ranks) {
  for (const auto& [option, time] :
       {std::pair{"--latency", arguments.latency}, {"--norm", arguments.norm}, {"--step", arguments.step}}) {
    require(std::isfinite(time) && time >= 0, fmt::format("{} = {}: a time is 0 or more", option, time));
  }
  ScheduleCosts costs{.stages = std::vector<StageCosts>(stages), .latency = arguments.latency};
  costs.set(&StageCosts::forward, arguments.forward, ranks, "schedule: --forward");
  costs.set(&StageCosts::backward_input, arguments.backward_input, ranks, "schedule: --backward-input");
  costs.set(&StageCosts::backward_weight, arguments.backward_weight, ranks, "schedule: --backward-weight");
  return costs;
}

ScheduleMemory memory_of(const Arguments& arguments, int ranks, int chunks) {
  if (arguments.memory_limit == 0) return {};
  require(arguments.memory_limit > 0, fmt::format("--memory-limit = {}: it is more than 0", arguments.memory_limit));
  return slot_limits(arguments.memory_limit, ranks, ranks * chunks);
}

struct Made {
  PipelineSchedule schedule;
  std::string title;
  bool optimal = false;
};

Made search(const Arguments& arguments) {
  require(arguments.kind.empty(), "--search finds the order itself: leave --kind out");
  const int chunks = arguments.chunks == 0 ? 1 : arguments.chunks;
  SearchRequest request;
  request.rank_of_stage = chunks == 2 ? v_placement(arguments.stages) : loop_placement(arguments.stages, chunks);
  request.microbatches = arguments.microbatches;
  request.costs = costs_of(arguments, arguments.stages * chunks, arguments.stages);
  request.memory = memory_of(arguments, arguments.stages, chunks);
  FoundSchedule found = search_schedule(request);
  return {append_step(insert_messages(std::move(found.schedule))),
          fmt::format("search, {} stages, {} microbatches", arguments.stages, arguments.microbatches), found.optimal};
}

Made make(const Arguments& arguments) {
  if (!arguments.file.empty()) {
    require(arguments.kind.empty() && !arguments.search, "--file gives the schedule: leave --kind and --search out");
    require(arguments.stages == 0 && arguments.microbatches == 0,
            "--file gives the schedule: leave --stages and --microbatches out");
    return {read_schedule_file(arguments.file), arguments.file};
  }
  require(arguments.stages >= 1, fmt::format("--stages {}: there must be 1 or more pipeline ranks", arguments.stages));
  require(arguments.microbatches >= 1,
          fmt::format("--microbatches {}: there must be 1 or more", arguments.microbatches));
  for (const auto& [option, field, n] : {std::tuple("--stages", "parallel.pp", arguments.stages),
                                         std::tuple("--chunks", "parallel.chunks", std::max(1, arguments.chunks))}) {
    require(range_of(field)->contains(n), fmt::format("{} {}: must be from {}", option, n, range_of(field)->text()));
  }
  const std::string size =
      schedule_size_problem(int64_t{arguments.stages} * std::max(1, arguments.chunks), arguments.microbatches);
  require(size.empty(),
          fmt::format("--stages {} --microbatches {}: {}", arguments.stages, arguments.microbatches, size));
  require(arguments.chunks >= 0, fmt::format("--chunks {}: there must be 1 or more", arguments.chunks));
  if (arguments.search) return search(arguments);
  require(!arguments.kind.empty(), "give --kind, --search or --file");
  ScheduleSpec spec{.kind = parse_schedule_kind(arguments.kind),
                    .ranks = arguments.stages,
                    .microbatches = arguments.microbatches,
                    .chunks = arguments.chunks,
                    .group = arguments.group};
  const int chunks = spec.chunks == 0 ? own_chunks(spec.kind) : spec.chunks;
  spec.costs = costs_of(arguments, arguments.stages * chunks, arguments.stages);
  return {generate(spec), fmt::format("{}, {} stages, {} microbatches", arguments.kind, spec.ranks, spec.microbatches)};
}

int run(const Arguments& arguments) {
  const Made made = make(arguments);
  const PipelineSchedule& schedule = made.schedule;
  const int ranks = static_cast<int>(schedule.ranks.size());
  const int chunks = std::max(1, schedule.stages() / std::max(1, ranks));
  const ScheduleFigures figures = verify(schedule, memory_of(arguments, ranks, chunks));
  const SimulationCosts costs{
      .passes = costs_of(arguments, schedule.stages(), ranks), .norm = arguments.norm, .step = arguments.step};
  const Simulation time = simulate(schedule, costs);
  const int64_t peak = *std::max_element(figures.peak_bytes.begin(), figures.peak_bytes.end());
  const double relative = static_cast<double>(peak) / chunks / std::min(ranks, schedule.microbatches);

  Facts facts;
  facts.add("stages", ranks, "pipeline ranks")
      .add("microbatches", schedule.microbatches)
      .add("chunks", chunks, "stages of the model on each rank")
      .add("makespan", real(time.makespan, ".6g"))
      .add("norm_and_step", real(time.norm_and_step, ".6g"))
      .add("bubble", real(time.bubble, ".4f"), "ranks begin together and wait for each other at the end")
      .add("span_bubble", real(time.span_bubble, ".4f"),
           "of the rank that takes longest from its first action to its last")
      .add("peak_slots", {figures.peak_bytes, fmt::format("{}", fmt::join(figures.peak_bytes, " "))},
           fmt::format("by rank; a slot is a microbatch's activations of one of {} stages", schedule.stages()))
      .add("relative_peak", real(relative, ".4f"), "of 1f1b's");
  if (arguments.search) facts.add("optimal", {made.optimal, made.optimal ? "proved" : "not proved"});
  fmt::print("{}\n\n{}\n", made.title, schedule_grid(schedule, time, 120));
  facts.print();
  if (!arguments.save.empty()) write_schedule_file(arguments.save, schedule);
  if (!arguments.svg.empty()) {
    std::ofstream file(arguments.svg, std::ios::binary | std::ios::trunc);
    file << schedule_svg(
        schedule, time,
        fmt::format("{}: {:.1f} % of the time is waiting; activations at their peak: {:.0f} % of 1f1b's", made.title,
                    100 * time.bubble, 100 * relative));
    file.close();
    if (!file) throw IoError(fmt::format("schedule: cannot write '{}'", arguments.svg));
  }
  if (arguments.as_json) print_json(Json(Json::Object{{"title", made.title}}).set_all(facts.json()));
  return 0;
}

}  // namespace

void add_schedule(Command& program) {
  Command command = program.add_command("schedule", "Generates, checks, times and draws a pipeline schedule.");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("--kind", &arguments->kind,
                     "gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, dualpipe-v, v-half or v-min");
  command.add_option("--stages", &arguments->stages,
                     "Pipeline ranks; each has one stage of the model, or --chunks of them");
  command.add_option("--microbatches", &arguments->microbatches, "Microbatches of a step");
  command.add_option("--chunks", &arguments->chunks, "Stages a rank, of interleaved and --search (2: in a V)");
  command.add_option("--group", &arguments->group,
                     "Microbatches that pass through a chunk before the next, of interleaved");
  const char* times = "Time of a microbatch on a rank, or one for each stage";
  command.add_option("--forward", &arguments->forward, times).with_commas().shows_default();
  command.add_option("--backward-input", &arguments->backward_input, times).with_commas().shows_default();
  command.add_option("--backward-weight", &arguments->backward_weight, times).with_commas().shows_default();
  command.add_option("--latency", &arguments->latency, "Time of a message between ranks");
  command.add_option("--norm", &arguments->norm, "Time of the gradient norm");
  command.add_option("--step", &arguments->step, "Time of the optimizer step");
  command.add_option(
      "--memory-limit", &arguments->memory_limit,
      "Most microbatches whose activations a rank keeps (1f1b: as many as --stages); a schedule that needs "
      "more is refused");
  command.add_flag("--search", arguments->search, "Find the fastest order within --memory-limit for these times");
  command.add_option("--file", &arguments->file, "Read the schedule from a file");
  command.add_option("--save", &arguments->save, "Write the schedule to a file");
  command.add_option("--svg", &arguments->svg, "Draw it into a file");
  command.add_json(arguments->as_json);
  command.runs([arguments] { return run(*arguments); });
}

}  // namespace tessera
