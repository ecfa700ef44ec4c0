#include "launch/config/pipeline_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>

#include "launch/run.pb.h"
#include "model/cost.h"
#include "model/shape/recompute.h"
#include "parallel/schedule/blocks.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "scaling/planning/schedule_search.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::string_view kFile = "file:";

// "3,4,4,1" as numbers; nothing when it is something else.
template <class T>
std::vector<T> numbers(const std::string& text) {
  std::vector<T> values;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    T value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc()) return {};
    values.push_back(value);
    if (next == end) return values;
    if (*next != ',') return {};
    at = next + 1;
  }
}

bool is_file(const ParallelConfig& parallel) { return parallel.schedule().starts_with(kFile); }
bool is_search(const ParallelConfig& parallel) { return parallel.schedule() == "search"; }

// Stages on each pipeline rank, of a schedule that is no file.
int chunks_of(const ParallelConfig& parallel) {
  if (parallel.chunks() > 0) return parallel.chunks();
  return is_search(parallel) ? 1 : own_chunks(parse_schedule_kind(parallel.schedule()));
}

ScheduleCosts costs_of(const ParallelConfig& parallel, int stages) {
  const ScheduleTimes& times = parallel.times();
  ScheduleCosts costs{.stages = std::vector<StageCosts>(stages), .latency = times.latency()};
  const auto set = [&](double StageCosts::*part, const std::string& text, const char* field) {
    const std::string what = fmt::format("parallel.times.{}", field);
    const std::vector<double> values = numbers<double>(text);
    if (values.empty())
      throw UsageError(fmt::format("{} = {}: must be times with commas between, e.g. 1 or 1,1,2,1", what, text));
    costs.set(part, values, parallel.pp(), what);
  };
  set(&StageCosts::forward, times.forward(), "forward");
  set(&StageCosts::backward_input, times.backward_input(), "backward_input");
  set(&StageCosts::backward_weight, times.backward_weight(), "backward_weight");
  return costs;
}

ScheduleMemory memory_of(const ParallelConfig& parallel, int stages) {
  if (parallel.memory_limit() <= 0) return {};
  return slot_limits(parallel.memory_limit(), parallel.pp(), stages);
}

void require_fit(bool fits, const RunConfig& config, const std::string& rule) {
  if (!fits) throw UsageError(fmt::format("parallel.schedule = {}: {}", config.parallel().schedule(), rule));
}

PipelineSchedule from_file(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  PipelineSchedule schedule = read_schedule_file(parallel.schedule().substr(kFile.size()));
  const int ranks = static_cast<int>(schedule.ranks.size()), stages = schedule.stages();
  require_fit(ranks == parallel.pp(), config,
              fmt::format("the file is for {} pipeline ranks, but parallel.pp = {}; choose pp = {}", ranks,
                          parallel.pp(), ranks));
  require_fit(!parallel.has_chunks() || parallel.chunks() * ranks == stages, config,
              fmt::format("the file has {} stages on {} ranks, but parallel.chunks = {}; leave chunks out", stages,
                          ranks, parallel.chunks()));
  require_fit(parallel.microbatch_group() == 0, config, "parallel.microbatch_group is interleaved's; leave it out");
  for (int rank = 0; rank < ranks; ++rank) {
    require_fit(
        std::find(schedule.rank_of_stage.begin(), schedule.rank_of_stage.end(), rank) != schedule.rank_of_stage.end(),
        config, fmt::format("the file places no stage on rank {}; each needs one", rank));
  }
  return schedule;
}

PipelineSchedule search(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  require_fit(parallel.microbatch_group() == 0, config, "parallel.microbatch_group is interleaved's; leave it out");
  const int chunks = chunks_of(parallel), stages = chunks * parallel.pp();
  const SearchRequest request{
      .rank_of_stage = chunks == 2 ? v_placement(parallel.pp()) : loop_placement(parallel.pp(), chunks),
      .microbatches = microbatches_of(config),
      .costs = costs_of(parallel, stages),
      .memory = memory_of(parallel, stages)};
  return search_schedule(request).schedule;
}

// The compute actions, at least.
PipelineSchedule bare_schedule(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  if (is_file(parallel)) {
    PipelineSchedule schedule = from_file(config);
    const int64_t samples = std::max(1, parallel.dp()) * config.data().micro_batch_size();
    require_fit(schedule.microbatches == microbatches_of(config), config,
                fmt::format("the file has {} microbatches, but data.global_batch_size / (parallel.dp * "
                            "data.micro_batch_size) = {}; choose data.global_batch_size = {}",
                            schedule.microbatches, microbatches_of(config), schedule.microbatches * samples));
    return schedule;
  }
  if (is_search(parallel)) return search(config);
  return compute_schedule({.kind = parse_schedule_kind(parallel.schedule()),
                           .ranks = parallel.pp(),
                           .microbatches = microbatches_of(config),
                           .chunks = parallel.chunks(),
                           .group = parallel.microbatch_group(),
                           .costs = costs_of(parallel, parallel.pp() * chunks_of(parallel))});
}

// Of the parts of the model, which do not depend on how each is cut.
ModelCost cost_of(const RunConfig& config) {
  const DataConfig& data = config.data();
  const ModelShape whole = model_shape(config.model(), {.slots = data.micro_batch_size() * data.sequence_length()});
  return stage_cost(whole, data.sequence_length());
}

// A file may name blocks by number.
void check_blocks(const RunConfig& config, const PipelineSchedule& schedule, std::span<const StagePart> parts) {
  for (const Schedule& list : schedule.ranks) {
    for (const Action& action : list) {
      if (action.blocks.whole()) continue;
      const StagePart& part = parts[action.stage];
      require_fit(
          action.blocks.first < part.blocks() &&
              (action.blocks.last == BlockRange::kToEnd || action.blocks.last <= part.blocks()),
          config,
          fmt::format("{} names blocks that stage {} does not have: it has {}; set parallel.blocks_per_stage, or "
                      "write the schedule anew",
                      to_string(action), part.stage, part.blocks()));
    }
  }
}

bool has(const PipelineSchedule& schedule, std::initializer_list<ActionKind> kinds) {
  return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), [&](const Schedule& list) {
    return std::any_of(list.begin(), list.end(), [&](const Action& action) {
      return std::find(kinds.begin(), kinds.end(), action.kind) != kinds.end();
    });
  });
}

}  // namespace

bool is_schedule(const std::string& text) {
  if (text.starts_with(kFile) || text == "search") return true;
  for (int kind = 0; kind < kScheduleKinds; ++kind) {
    if (text == name(static_cast<ScheduleKind>(kind))) return true;
  }
  return false;
}

int file_microbatches(const RunConfig& config) {
  return is_file(config.parallel()) ? from_file(config).microbatches : 0;
}

int microbatches_of(const RunConfig& config) {
  const int64_t dp = std::max(1, config.parallel().dp());
  return static_cast<int>(config.data().global_batch_size() / (dp * config.data().micro_batch_size()));
}

int stages_of(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  return is_file(parallel) ? from_file(config).stages() : parallel.pp() * chunks_of(parallel);
}

PipelineSchedule training_schedule(const RunConfig& config, std::span<const StagePart> parts) {
  PipelineSchedule schedule = bare_schedule(config);
  const std::vector<Recompute> modes =
      recompute_plan(config.parallel().recompute(), static_cast<int>(config.model().num_hidden_layers()));
  if (!has(schedule, {ActionKind::Recompute}) &&
      std::any_of(modes.begin(), modes.end(), [](Recompute mode) { return mode != Recompute::None; })) {
    std::vector<std::vector<bool>> plan;  // by stage and block
    for (const StagePart& part : parts) {
      std::vector<bool>& stage = plan.emplace_back();
      for (int block = part.first_block; block < part.last_block; ++block)
        stage.push_back(modes[block] != Recompute::None);
    }
    schedule = insert_recompute(std::move(schedule), plan);
  }
  const int zero_stage = config.parallel().zero_stage();
  const bool compute_alone =  // else a file has more
      !has(schedule, {ActionKind::SendForward, ActionKind::ReceiveForward, ActionKind::Gather, ActionKind::Release,
                      ActionKind::Reduce, ActionKind::Norm, ActionKind::Step});
  if (zero_stage >= 2) {
    require_fit(
        compute_alone, config,
        fmt::format("parallel.zero_stage = {} puts its reductions and gathers between the file's actions; give it "
                    "a file of F, B, W and C alone, or choose zero_stage 0 or 1",
                    zero_stage));
    schedule = insert_reductions(std::move(schedule), blocks_of(parts), 1, ReduceOf::EachMicrobatch);
  } else if (zero_stage == 1 && compute_alone) {  // sums beside what is left of backward
    schedule = insert_reductions(std::move(schedule), blocks_of(parts), 1, ReduceOf::LastMicrobatch);
  }
  if (zero_stage == 3) schedule = insert_gathers(std::move(schedule), blocks_of(parts));
  // A file may be of compute actions alone.
  if (!has(schedule, {ActionKind::SendForward, ActionKind::ReceiveForward}))
    schedule = insert_messages(std::move(schedule));
  if (!has(schedule, {ActionKind::Norm, ActionKind::Step})) schedule = append_step(std::move(schedule));
  check_blocks(config, schedule, parts);
  verify(schedule, memory_of(config.parallel(), schedule.stages()));
  return schedule;
}

std::vector<int> blocks_of(std::span<const StagePart> parts) {
  std::vector<int> blocks;
  for (const StagePart& part : parts) blocks.push_back(part.blocks());
  return blocks;
}

std::vector<StagePart> stage_parts(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  const auto blocks = static_cast<int>(config.model().num_hidden_layers());
  const int stages = stages_of(config);
  if (!parallel.has_blocks_per_stage()) {
    if (blocks < stages)
      throw UsageError(fmt::format(
          "parallel.pp = {} with schedule {} has {} stages, but model.num_hidden_layers = {}: "
          "each stage needs a block; choose pp up to {}",
          parallel.pp(), parallel.schedule(), stages, blocks, std::max(1, blocks * parallel.pp() / stages)));
    return balance_stages(stages, cost_of(config));
  }
  const std::vector<int> sizes = numbers<int>(parallel.blocks_per_stage());
  if (sizes.empty())
    throw UsageError(
        fmt::format("parallel.blocks_per_stage = {}: must be numbers with commas between, one a stage, "
                    "e.g. 3,4,4,1",
                    parallel.blocks_per_stage()));
  if (static_cast<int>(sizes.size()) != stages)
    throw UsageError(
        fmt::format("parallel.blocks_per_stage = {}: names {} stages, but parallel.pp = {} with schedule {} "
                    "has {}",
                    parallel.blocks_per_stage(), sizes.size(), parallel.pp(), parallel.schedule(), stages));
  return stages_of(blocks, sizes);
}

}  // namespace tessera
