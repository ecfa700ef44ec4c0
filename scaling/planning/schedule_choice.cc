#include "scaling/planning/schedule_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>

#include "parallel/parallel.pb.h"
#include "parallel/schedule/blocks.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
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

ScheduleChoice::ScheduleChoice(const ParallelConfig& parallel) : parallel_(parallel) {
  if (!is_file(parallel)) return;
  file_ = read_schedule_file(parallel.schedule().substr(kFile.size()));
  const int ranks = static_cast<int>(file_->ranks.size()), stages = file_->stages();
  require(ranks == parallel.pp(), fmt::format("the file is for {} pipeline ranks, but parallel.pp = {}; choose pp = {}",
                                              ranks, parallel.pp(), ranks));
  require(!parallel.has_chunks() || parallel.chunks() * ranks == stages,
          fmt::format("the file has {} stages on {} ranks, but parallel.chunks = {}; leave chunks out", stages, ranks,
                      parallel.chunks()));
  require(parallel.microbatch_group() == 0, "parallel.microbatch_group is interleaved's; leave it out");
  for (int rank = 0; rank < ranks; ++rank) {
    require(std::find(file_->rank_of_stage.begin(), file_->rank_of_stage.end(), rank) != file_->rank_of_stage.end(),
            fmt::format("the file places no stage on rank {}; each needs one", rank));
  }
}

void ScheduleChoice::require(bool fits, const std::string& rule) const {
  if (!fits) throw UsageError(fmt::format("parallel.schedule = {}: {}", parallel_.schedule(), rule));
}

int ScheduleChoice::chunks() const {
  if (parallel_.chunks() > 0) return parallel_.chunks();
  return is_search(parallel_) ? 1 : own_chunks(parse_schedule_kind(parallel_.schedule()));
}

int ScheduleChoice::stages() const { return file_ ? file_->stages() : parallel_.pp() * chunks(); }

int ScheduleChoice::file_microbatches() const { return file_ ? file_->microbatches : 0; }

PipelineSchedule ScheduleChoice::searched(int microbatches) const {
  require(parallel_.microbatch_group() == 0, "parallel.microbatch_group is interleaved's; leave it out");
  const int each = chunks(), stages = each * parallel_.pp();
  const SearchRequest request{
      .rank_of_stage = each == 2 ? v_placement(parallel_.pp()) : loop_placement(parallel_.pp(), each),
      .microbatches = microbatches,
      .costs = costs_of(parallel_, stages),
      .memory = memory_of(parallel_, stages)};
  return search_schedule(request).schedule;
}

PipelineSchedule ScheduleChoice::compute_actions(int microbatches, int64_t replicated_samples) const {
  if (file_) {
    require(file_->microbatches == microbatches,
            fmt::format("the file has {} microbatches, but data.global_batch_size / (parallel.dp * "
                        "data.micro_batch_size) = {}; choose data.global_batch_size = {}",
                        file_->microbatches, microbatches, file_->microbatches * replicated_samples));
    return *file_;
  }
  if (is_search(parallel_)) return searched(microbatches);
  return compute_schedule({.kind = parse_schedule_kind(parallel_.schedule()),
                           .ranks = parallel_.pp(),
                           .microbatches = microbatches,
                           .chunks = parallel_.chunks(),
                           .group = parallel_.microbatch_group(),
                           .costs = costs_of(parallel_, parallel_.pp() * chunks())});
}

// A file may name blocks by number.
void ScheduleChoice::check_blocks(const PipelineSchedule& schedule, std::span<const StagePart> parts) const {
  for (const Schedule& list : schedule.ranks) {
    for (const Action& action : list) {
      if (action.blocks.whole()) continue;
      const StagePart& part = parts[action.stage];
      require(action.blocks.first < part.blocks() &&
                  (action.blocks.last == BlockRange::kToEnd || action.blocks.last <= part.blocks()),
              fmt::format("{} names blocks that stage {} does not have: it has {}; set parallel.blocks_per_stage, or "
                          "write the schedule anew",
                          to_string(action), part.stage, part.blocks()));
    }
  }
}

VerifiedSchedule ScheduleChoice::make(int microbatches, int64_t replicated_samples, std::span<const StagePart> parts,
                                      std::span<const Recompute> modes) const {
  PipelineSchedule schedule = compute_actions(microbatches, replicated_samples);
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
  const int zero_stage = parallel_.zero_stage();
  const bool compute_alone =  // else a file has more
      !has(schedule, {ActionKind::SendForward, ActionKind::ReceiveForward, ActionKind::Gather, ActionKind::Release,
                      ActionKind::Reduce, ActionKind::Norm, ActionKind::Step});
  if (zero_stage >= 2) {
    require(compute_alone,
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
  check_blocks(schedule, parts);
  ScheduleFigures figures = verify(schedule, memory_of(parallel_, schedule.stages()));
  return {std::move(schedule), std::move(figures)};
}

std::vector<int> blocks_of(std::span<const StagePart> parts) {
  std::vector<int> blocks;
  for (const StagePart& part : parts) blocks.push_back(part.blocks());
  return blocks;
}

std::vector<StagePart> stage_parts(const ParallelConfig& parallel, int stages, const ModelCost& cost) {
  const auto blocks = static_cast<int>(cost.blocks.size());
  if (!parallel.has_blocks_per_stage()) {
    if (blocks < stages)
      throw UsageError(fmt::format(
          "parallel.pp = {} with schedule {} has {} stages, but model.num_hidden_layers = {}: "
          "each stage needs a block; choose pp up to {}",
          parallel.pp(), parallel.schedule(), stages, blocks, std::max(1, blocks * parallel.pp() / stages)));
    return balance_stages(stages, cost);
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
