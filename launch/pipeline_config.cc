#include "launch/pipeline_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "launch/run.pb.h"
#include "model/recompute.h"
#include "parallel/schedule_blocks.h"
#include "parallel/schedule_generate.h"
#include "parallel/schedule_passes.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// "3,4,4,1" as numbers.
std::vector<int> numbers(const std::string& text) {
  std::vector<int> values;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    int value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc()) break;
    values.push_back(value);
    if (next == end) return values;
    if (*next != ',') break;
    at = next + 1;
  }
  throw UsageError(
      fmt::format("parallel.blocks_per_stage = {}: must be numbers with commas between, one a stage, "
                  "e.g. 3,4,4,1",
                  text));
}

ScheduleSpec spec_of(const RunConfig& config) {
  const ParallelConfig& parallel = config.parallel();
  return {.kind = parse_schedule_kind(parallel.schedule()),
          .ranks = parallel.pp(),
          .microbatches = microbatches_of(config),
          .chunks = parallel.chunks(),
          .group = parallel.microbatch_group()};
}

}  // namespace

int microbatches_of(const RunConfig& config) {
  const int64_t dp = std::max(1, config.parallel().dp());
  return static_cast<int>(config.data().global_batch_size() / (dp * config.data().micro_batch_size()));
}

int stages_of(const RunConfig& config) {
  ScheduleSpec spec = spec_of(config);
  spec.microbatches = 1;
  return compute_schedule(spec).stages();
}

PipelineSchedule training_schedule(const RunConfig& config, std::span<const StagePart> parts) {
  PipelineSchedule schedule = compute_schedule(spec_of(config));
  const std::vector<Recompute> modes =
      recompute_plan(config.parallel().recompute(), static_cast<int>(config.model().num_hidden_layers()));
  if (std::any_of(modes.begin(), modes.end(), [](Recompute mode) { return mode != Recompute::None; })) {
    std::vector<std::vector<bool>> plan;  // by stage and block
    for (const StagePart& part : parts) {
      std::vector<bool>& stage = plan.emplace_back();
      for (int block = part.first_block; block < part.last_block; ++block)
        stage.push_back(modes[block] != Recompute::None);
    }
    schedule = insert_recompute(std::move(schedule), plan);
  }
  if (config.parallel().zero_stage() >= 2)
    schedule = insert_reductions(std::move(schedule), blocks_of(parts), 1, ReduceOf::EachMicrobatch);
  if (config.parallel().zero_stage() == 3) schedule = insert_gathers(std::move(schedule), blocks_of(parts));
  return append_step(insert_messages(std::move(schedule)));
}

std::vector<int> blocks_of(std::span<const StagePart> parts) {
  std::vector<int> blocks;
  for (const StagePart& part : parts) blocks.push_back(part.blocks());
  return blocks;
}

std::vector<StagePart> stage_parts(const RunConfig& config, const ModelCost& cost) {
  const ParallelConfig& parallel = config.parallel();
  const auto blocks = static_cast<int>(config.model().num_hidden_layers());
  const int stages = stages_of(config);
  if (!parallel.has_blocks_per_stage()) {
    if (blocks < stages)
      throw UsageError(fmt::format(
          "parallel.pp = {} with schedule {} has {} stages, but model.num_hidden_layers = {}: "
          "each stage needs a block; choose pp up to {}",
          parallel.pp(), parallel.schedule(), stages, blocks, std::max(1, blocks * parallel.pp() / stages)));
    return balance_stages(blocks, stages, cost);
  }
  const std::vector<int> sizes = numbers(parallel.blocks_per_stage());
  if (static_cast<int>(sizes.size()) != stages)
    throw UsageError(
        fmt::format("parallel.blocks_per_stage = {}: names {} stages, but parallel.pp = {} with schedule {} "
                    "has {}",
                    parallel.blocks_per_stage(), sizes.size(), parallel.pp(), parallel.schedule(), stages));
  return stages_of(blocks, sizes);
}

}  // namespace tessera
