#include "parallel/schedule_generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "parallel/schedule_interleaved.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::array<const char*, 3> kNames = {"gpipe", "1f1b", "interleaved"};

void require(bool holds, const std::string& message) {
  if (!holds) throw UsageError("schedule: " + message);
}

}  // namespace

const char* name(ScheduleKind kind) { return kNames[static_cast<size_t>(kind)]; }

ScheduleKind parse_schedule_kind(const std::string& text) {
  const auto found = std::find(kNames.begin(), kNames.end(), text);
  require(found != kNames.end(), fmt::format("there is no kind '{}'; there are {}", text, fmt::join(kNames, ", ")));
  return static_cast<ScheduleKind>(found - kNames.begin());
}

PipelineSchedule compute_schedule(const ScheduleSpec& spec) {
  const char* kind = name(spec.kind);
  require(spec.ranks >= 1, fmt::format("{} stages: there must be 1 or more", spec.ranks));
  require(spec.microbatches >= 1, fmt::format("{} microbatches: there must be 1 or more", spec.microbatches));
  const bool interleaved = spec.kind == ScheduleKind::Interleaved;
  require(spec.chunks >= 0 && (interleaved || spec.chunks <= 1),
          fmt::format("{} chunks: {} has 1 a rank; interleaved has any number", spec.chunks, kind));
  require(spec.group >= 0 && (interleaved || spec.group == 0),
          fmt::format("group of {}: {} has no microbatch groups; interleaved has them", spec.group, kind));
  switch (spec.kind) {
    case ScheduleKind::GPipe:
      return gpipe_schedule(spec.ranks, spec.microbatches);
    case ScheduleKind::OneForwardOneBackward:
      return one_forward_one_backward_schedule(spec.ranks, spec.microbatches);
    case ScheduleKind::Interleaved:
      return interleaved_schedule(spec.ranks, spec.microbatches, spec.chunks == 0 ? 2 : spec.chunks,
                                  spec.group == 0 ? spec.ranks : spec.group);
  }
  throw InternalError("a kind of schedule without a generator");
}

PipelineSchedule generate(const ScheduleSpec& spec) {
  return append_step(insert_messages(compute_schedule(spec)), spec.tied);
}

}  // namespace tessera
