// tessera plan: what a config would take and do on so many ranks, from its layout alone. Starts no training, needs no
// data set, and no rank but this one.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "data/order/loader.h"
#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/run_arguments.h"
#include "launch/commands/table.h"
#include "launch/config/read.h"
#include "launch/config/run_layout.h"
#include "launch/process/host.h"
#include "launch/run.pb.h"
#include "launch/run/gpu.h"
#include "model/cost.h"
#include "scaling/hardware.h"
#include "scaling/hardware.pb.h"
#include "scaling/planning/fitting.h"
#include "scaling/planning/memory.h"
#include "scaling/planning/simulate.h"
#include "scaling/planning/traffic.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  int world = 0;  // 0: what the config's axes multiply to
  std::string hardware;
  bool as_json = false;
};

int ranks_of(const ParallelConfig& parallel, int world) {
  return world > 0 ? world : parallel.pp() * std::max(1, parallel.dp()) * parallel.cp() * parallel.tp();
}

HardwareConfig hardware_of(const std::string& name) {
  HardwareConfig hardware;
  const std::string named = "configs/hardware/" + name + ".textproto";
  if (!std::filesystem::exists(name) && !std::filesystem::exists(named))
    throw UsageError(
        fmt::format("--hardware {}: neither {} nor {} is a file here; give the path of a description like "
                    "those in configs/hardware",
                    name, name, named));
  read_hardware(std::filesystem::exists(name) ? name : named, hardware);
  if (hardware.memory_bytes() <= 0) throw UsageError(fmt::format("--hardware {}: it states no memory_bytes", name));
  return hardware;
}

MemoryRequest memory_request(const RunConfig& config, const Layout& layout) {
  const bool gpu = config.run().device() == RunSection::CUDA;
  // As many as a rank gets when all of them run on this host, unless the config says how many.
  const int threads =
      config.run().threads() > 0 ? config.run().threads() : std::max(1, usable_cores() / layout.mesh.size());
  return {.target = {gpu ? Device::Cuda : Device::Cpu, threads},
          .graphs = config.run().cuda_graphs() != CudaGraphs::OFF,
          .validation_sets = config.data().validation_size(),
          .loader_bytes = Loader::bytes(config.data(), layout.mesh.dp)};
}

// Time of each stage's passes in FLOPs, which is what there is before a machine has been measured.
SimulationCosts costs_in_flops(const Layout& layout) {
  const ModelCost cost = stage_cost(layout.whole_model(), layout.sequence_length);
  SimulationCosts costs;
  costs.recompute = 1;
  for (const StagePart& part : layout.parts) {
    double flops = (part.first() ? cost.embedding : 0) + (part.last() ? cost.head : 0);
    for (int block = part.first_block; block < part.last_block; ++block) flops += cost.blocks[block];
    costs.passes.stages.push_back({flops / 3, flops / 3, flops / 3});
    costs.blocks.push_back(part.blocks());
  }
  return costs;
}

double step_flops_of(const Layout& layout) {
  return stage_cost(layout.whole_model(), layout.sequence_length).sum() *
         static_cast<double>(layout.global_batch_samples / layout.micro_batch_samples);
}

Json memory_json(const std::vector<RankClass>& classes) {
  Json list = Json::Array();
  for (const RankClass& ranks : classes) {
    Json categories = Json::Object();
    for (const MemoryLine& line : ranks.lines) categories.set(line.category, line.bytes);
    list.push_back(Json::Object{{"ranks", ranks.ranks},
                                {"first_rank", ranks.first_rank},
                                {"categories", categories},
                                {"total_bytes", total_bytes(ranks.lines)}});
  }
  return list;
}

void print_memory(const std::vector<RankClass>& classes, int64_t staging_bytes) {
  // The first takes most; the last least. Those between are in the JSON.
  std::vector<Column> columns = {{"category", Column::Align::Left}, {"most"}};
  const bool differ = classes.size() > 1;
  if (differ) columns.push_back({"least"});
  Table table(columns);
  for (size_t i = 0; i < classes.front().lines.size(); ++i) {
    const MemoryLine& most = classes.front().lines[i];
    std::vector<Cell> cells = {most.category, bytes(most.bytes)};
    if (differ) cells.push_back(bytes(classes.back().lines[i].bytes));
    table.add(cells);
  }
  std::vector<Cell> totals = {"total", bytes(total_bytes(classes.front().lines))};
  if (differ) totals.push_back(bytes(total_bytes(classes.back().lines)));
  table.total(totals);
  fmt::print("memory of a rank: {}, e.g. rank {}, {} most{}\n", counted(classes.front().ranks, "rank"),
             classes.front().first_rank, classes.front().ranks == 1 ? "takes" : "take",
             differ ? fmt::format("; rank {} takes least", classes.back().first_rank) : "");
  table.print();
  fmt::print(
      "beside it, on the host, at most {} for checkpoints on their way to the disk; and what libraries hold, which a "
      "run prints when it begins\n",
      bytes(staging_bytes).text);
}

template <class Visit>
void for_each_collective(const AxisTraffic& axis, Visit visit) {
  for (int kind = 0; kind < kCollectives; ++kind) {
    if (axis.bytes[kind] > 0) visit(name(static_cast<Collective>(kind)), axis.bytes[kind]);
  }
}

std::map<std::string, int64_t> traffic_by_group(const std::vector<AxisTraffic>& traffic) {
  std::map<std::string, int64_t> groups;
  for (const AxisTraffic& axis : traffic) groups[axis.group] = axis.total_bytes();
  return groups;
}

Json traffic_json(const std::vector<AxisTraffic>& traffic) {
  Json groups = Json::Object();
  for (const AxisTraffic& axis : traffic) {
    Json collectives = Json::Object();
    for_each_collective(axis, [&](const char* collective, int64_t sent) { collectives.set(collective, sent); });
    groups.set(axis.group, collectives);
  }
  return groups;
}

// What dominates, and what would make it fit. Returns the change, for JSON.
Json say_what_fits(const LayoutRequest& request, const MemoryRequest& memory, const RankClass& worst, int64_t limit,
                   const std::string& hardware) {
  const int64_t taken = total_bytes(worst.lines, memory.target.device);
  const auto largest = std::max_element(worst.lines.begin(), worst.lines.end(),
                                        [](const MemoryLine& a, const MemoryLine& b) { return a.bytes < b.bytes; });
  fmt::print("does not fit: rank {} takes {} of the {} of {}, {} of them {}\n", worst.first_rank, bytes(taken).text,
             bytes(limit).text, hardware, bytes(largest->bytes).text, largest->category);
  const std::optional<FittingChange> change = cheapest_fit(request, memory, limit);
  if (!change) {
    fmt::print(
        "nothing that was tried fits: recomputation, ZeRO up to stage 3, smaller micro-batches, and twice the "
        "tensor- and pipeline-parallel ranks; use more ranks, or a smaller model\n");
    return {};
  }
  fmt::print("it would fit with --set {}, at the price that {}: then {}\n", fmt::join(change->settings, " --set "),
             change->cost, bytes(change->bytes).text);
  return Json::Object{{"set", change->settings}, {"total_bytes", change->bytes}};
}

int run_plan(const PlanArguments& arguments) {
  RunConfig config;
  Origins origins;
  read_config(arguments.config, arguments.overrides, config, origins);
  Surroundings surroundings{.world_size = ranks_of(config.parallel(), arguments.world),
                            .tokenizer_vocab_size = tokenizer_vocabulary(config, Surroundings::Data::NotNeeded),
                            .data = Surroundings::Data::NotNeeded};
  find_gpus(surroundings);
  std::optional<HardwareConfig> hardware;
  if (!arguments.hardware.empty()) {
    hardware = hardware_of(arguments.hardware);
    config.mutable_run()->set_device(RunSection::CUDA);
    surroundings.cuda = Surroundings::Cuda::Present;  // there, if not here
  }
  const Layout layout = resolve(config, origins, surroundings);
  const MemoryRequest memory = memory_request(config, layout);
  const std::vector<RankClass> classes = memory_classes(layout, memory);
  const RankClass& worst = classes.front();
  const double flops = step_flops_of(layout);
  const double bubble = simulate(layout.schedule, costs_in_flops(layout)).bubble;
  const int64_t parameters = model_costs(layout.whole_model(), layout.microbatch_tokens()).sum().parameters;
  const std::vector<AxisTraffic> traffic = step_traffic(layout, worst.first_rank);
  const int64_t peak = *std::max_element(layout.figures.peak_bytes.begin(), layout.figures.peak_bytes.end());

  Facts facts;
  facts
      .add("ranks", layout.mesh.size(),
           fmt::format("pp={} dp={} cp={} tp={}", layout.mesh.pp, layout.mesh.dp, layout.mesh.cp, layout.mesh.tp))
      .add("parameters", parameters)
      .add("tokens_per_step", layout.step_tokens(),
           fmt::format("{} of {}, in {} of {} on each data-parallel rank",
                       counted(layout.global_batch_samples, "sequence"), with_thousands(layout.sequence_length),
                       counted(layout.microbatches, "microbatch", "microbatches"), layout.micro_batch_samples))
      .add("steps", config.run().steps())
      .add("total_tokens",
           real(static_cast<double>(config.run().steps()) * static_cast<double>(layout.step_tokens()), ".4g"))
      .add("flops_per_step", real(flops, ".4g"), "model FLOPs, recomputation not counted")
      .add("schedule", config.parallel().schedule(),
           fmt::format("{}; at most {} alive on a rank", counted(layout.stages(), "stage"),
                       counted(peak, "microbatch of a stage", "microbatches of a stage")))
      .add("bubble", real(bubble, ".4f"), "share of the ranks' time, passes timed by their FLOPs");
  facts.print();
  fmt::print("\n");
  print_memory(classes, config.checkpoint().asynchronous() ? config.checkpoint().staging_mib() << 20 : 0);
  Table groups({{"axis", Column::Align::Left}, {"collective", Column::Align::Left}, {"bytes"}});
  for (const AxisTraffic& axis : traffic) {
    for_each_collective(axis, [&](const char* collective, int64_t sent) {
      groups.add({axis.group, collective, bytes(sent)});
    });
  }
  fmt::print("\nsent in a step by rank {}\n", worst.first_rank);
  groups.print();

  Json fits, change;
  if (hardware) {
    if (!kHasCuda)
      fmt::print("\nthis build has no CUDA kernels: lists and workspace of attention are stated as the CPU's\n");
    const auto limit = static_cast<int64_t>(hardware->memory_bytes());
    const int64_t taken = total_bytes(worst.lines, memory.target.device);  // without what is in the host's memory
    fits = taken <= limit;
    fmt::print("\n");
    if (taken <= limit)
      fmt::print("fits: {} of the {} of {}, which leaves {} for libraries\n", bytes(taken).text, bytes(limit).text,
                 hardware->name(), bytes(limit - taken).text);
    else
      change = say_what_fits(layout_request(config, layout.mesh.size()), memory, worst, limit, hardware->name());
  }
  if (arguments.as_json) {
    Json object = facts.json();
    object.set("memory", memory_json(classes));
    object.set("bytes_per_axis", traffic_by_group(traffic));
    object.set("bytes_per_collective", traffic_json(traffic));
    object.set("fits", fits);
    object.set("cheapest_change", change);
    print_json(object);
  }
  return 0;
}

}  // namespace

void add_plan(Command& program) {
  const auto arguments = std::make_shared<PlanArguments>();
  Command command = program.add_command(
      "plan", "What a run takes and does on so many ranks: memory to the byte, FLOPs, messages, its schedule");
  command.add_option("CONFIG", &arguments->config, "Run config: protobuf text format (configs/)").required();
  command.add_option("--set", &arguments->overrides, "Override a field: path=value")
      .value_name("PATH=VALUE")
      .one_each_time();
  command.add_option("--world", &arguments->world, "Ranks; default: the product of the config's axes").positive();
  command.add_option("--hardware", &arguments->hardware,
                     "Whether it fits there: a name in configs/hardware, or a file like those");
  command.add_json(arguments->as_json);
  command.runs([arguments] { return run_plan(*arguments); });
}

}  // namespace tessera
