#include "parallel/schedule/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "parallel/schedule/replay.h"
#include "parallel/schedule/text.h"
#include "tensor/check.h"

namespace tessera {
namespace {

[[noreturn]] void refuse(const PipelineSchedule& schedule, int rank, const std::vector<size_t>& at,
                         const std::string& rule) {
  const Schedule& list = schedule.ranks[rank];
  const std::string action = at[rank] < list.size() ? to_string(list[at[rank]]) + ": " : "";
  throw UsageError(
      fmt::format("bad schedule: rank {}: {}{}{}", rank, action, rule, grid_with_arrow(schedule, rank, at)));
}

void check_form(const PipelineSchedule& schedule, const ScheduleMemory& memory) {
  const int ranks = static_cast<int>(schedule.ranks.size());
  if (schedule.microbatches < 1) throw UsageError(fmt::format("bad schedule: {} microbatches", schedule.microbatches));
  std::vector<bool> used(ranks, false);
  for (int rank : schedule.rank_of_stage) {
    if (rank < 0 || rank >= ranks) {
      throw UsageError(fmt::format("bad schedule: a stage is placed on rank {}, but there are {} ranks", rank, ranks));
    }
    used[rank] = true;
  }
  if (const auto idle = std::find(used.begin(), used.end(), false); idle != used.end() || ranks == 0) {
    throw UsageError(fmt::format("bad schedule: no stage is placed on rank {}", idle - used.begin()));
  }
  TESSERA_CHECK(memory.stages.empty() || static_cast<int>(memory.stages.size()) == schedule.stages(),
                "bytes of every stage");
  TESSERA_CHECK(memory.limits.empty() || static_cast<int>(memory.limits.size()) == ranks, "a limit for every rank");
}

// All ranks as far as they get. Returns whether all lists ended.
bool run(const PipelineSchedule& schedule, ScheduleReplay& replay, std::vector<size_t>& at) {
  std::vector<bool> ended(at.size(), false);
  for (bool moved = true; moved;) {
    moved = false;
    for (int r = 0; r < static_cast<int>(at.size()); ++r) {
      if (ended[r]) continue;
      const Schedule& list = schedule.ranks[r];
      while (at[r] < list.size()) {
        const PlayResult result = replay.play(r, list[at[r]]);
        if (result.kind == PlayResult::Kind::Bad) refuse(schedule, r, at, result.rule);
        if (result.kind == PlayResult::Kind::Wait) break;
        ++at[r];
        moved = true;
      }
      if (at[r] < list.size()) continue;
      ended[r] = true;
      if (const std::string missing = replay.missing(r); !missing.empty()) refuse(schedule, r, at, missing);
    }
  }
  return std::find(ended.begin(), ended.end(), false) == ended.end();
}

// Every rank that has not ended waits. The one that waits for a rank that has ended is named, else the first.
[[noreturn]] void refuse_deadlock(const PipelineSchedule& schedule, ScheduleReplay& replay,
                                  const std::vector<size_t>& at) {
  std::string waits;
  int first = -1, hopeless = -1;
  for (int r = 0; r < static_cast<int>(at.size()); ++r) {
    if (at[r] == schedule.ranks[r].size()) continue;
    const PlayResult result = replay.play(r, schedule.ranks[r][at[r]]);
    if (first < 0) first = r;
    if (hopeless < 0 && at[result.rank] == schedule.ranks[result.rank].size()) hopeless = r;
    waits += fmt::format("\n  rank {} waits in {}: {} (rank {})", r, to_string(schedule.ranks[r][at[r]]),
                         result.awaited, result.rank);
  }
  refuse(schedule, hopeless >= 0 ? hopeless : first, at, "it waits for ever" + waits);
}

}  // namespace

ScheduleMemory slot_limits(double microbatches, int ranks, int stages) {
  const auto slots = static_cast<int64_t>(std::floor(microbatches * stages / ranks + 1e-9));
  return {.stages = {}, .limits = std::vector<int64_t>(ranks, slots)};
}

ScheduleFigures verify(const PipelineSchedule& schedule, const ScheduleMemory& memory) {
  check_form(schedule, memory);
  std::vector<BufferCounts> buffers = most_alive(schedule);
  for (int s = 0; s < schedule.stages(); ++s) {
    // A gradient that is on its way still fills its input: with one more the next can come meanwhile.
    if (schedule.receives(s)) buffers[s].inputs = std::min(buffers[s].inputs + 1, schedule.microbatches);
  }
  while (true) {
    ScheduleReplay replay(schedule, memory, buffers);
    std::vector<size_t> at(schedule.ranks.size(), 0);
    if (run(schedule, replay, at)) return replay.figures();
    // Ranks that wait for one another to reuse buffers may go on with one more.
    bool more = false;
    for (int r = 0; r < static_cast<int>(at.size()); ++r) {
      if (at[r] == schedule.ranks[r].size()) continue;
      const Action& action = schedule.ranks[r][at[r]];
      const PlayResult result = replay.play(r, action);
      if (result.buffer == nullptr || *result.buffer >= schedule.microbatches) continue;
      int BufferCounts::*which = action.kind == ActionKind::Forward ? &BufferCounts::outputs : &BufferCounts::inputs;
      ++(buffers[action.stage].*which);
      more = true;
    }
    if (!more) refuse_deadlock(schedule, replay, at);
  }
}

}  // namespace tessera
