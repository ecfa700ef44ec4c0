#include "parallel/schedule/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "parallel/schedule/controllable.h"
#include "parallel/schedule/interleaved.h"
#include "parallel/schedule/v.h"
#include "parallel/schedule/zero_bubble.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr std::array<const char*, kScheduleKinds> kNames = {"gpipe", "1f1b",       "interleaved", "zb-h1", "zb-h2",
                                                            "zb-v",  "dualpipe-v", "v-half",      "v-min"};

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

int own_chunks(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::GPipe:
    case ScheduleKind::OneForwardOneBackward:
    case ScheduleKind::ZbH1:
    case ScheduleKind::ZbH2:
      return 1;
    case ScheduleKind::Interleaved:
    case ScheduleKind::ZbV:
    case ScheduleKind::DualPipeV:
    case ScheduleKind::VHalf:
    case ScheduleKind::VMin:
      return 2;
  }
  throw InternalError("a kind of schedule without a number of stages");
}

PipelineSchedule compute_schedule(const ScheduleSpec& spec) {
  const char* kind = name(spec.kind);
  const bool interleaved = spec.kind == ScheduleKind::Interleaved;
  require(spec.ranks >= 1, fmt::format("{} stages: there must be 1 or more", spec.ranks));
  require(spec.microbatches >= 1, fmt::format("{} microbatches: there must be 1 or more", spec.microbatches));
  require(spec.chunks >= 0, fmt::format("{} chunks: there must be 1 or more", spec.chunks));
  const int chunks = spec.chunks == 0 ? own_chunks(spec.kind) : spec.chunks;
  require(interleaved || chunks == own_chunks(spec.kind),
          fmt::format("{} chunks: {} has {} a rank; interleaved has any number", chunks, kind, own_chunks(spec.kind)));
  require(spec.group >= 0, fmt::format("group of {}: there must be 1 or more microbatches", spec.group));
  require(interleaved || spec.group == 0,
          fmt::format("group of {}: {} has no microbatch groups; interleaved has them", spec.group, kind));
  const size_t stages = static_cast<size_t>(spec.ranks) * chunks;
  require(spec.costs.stages.empty() || spec.costs.stages.size() == stages,
          fmt::format("costs of {} stages, but there are {}", spec.costs.stages.size(), stages));
  switch (spec.kind) {
    case ScheduleKind::GPipe:
      return gpipe_schedule(spec.ranks, spec.microbatches);
    case ScheduleKind::OneForwardOneBackward:
      return one_forward_one_backward_schedule(spec.ranks, spec.microbatches);
    case ScheduleKind::Interleaved:
      return interleaved_schedule(spec.ranks, spec.microbatches, chunks, spec.group == 0 ? spec.ranks : spec.group);
    case ScheduleKind::ZbH1:
      return zb_h1_schedule(spec.ranks, spec.microbatches, spec.costs);
    case ScheduleKind::ZbH2:
      return zb_h2_schedule(spec.ranks, spec.microbatches, spec.costs);
    case ScheduleKind::ZbV:
      return zb_v_schedule(spec.ranks, spec.microbatches, spec.costs);
    case ScheduleKind::DualPipeV:
      return dualpipe_v_schedule(spec.ranks, spec.microbatches);
    case ScheduleKind::VHalf:
      return v_half_schedule(spec.ranks, spec.microbatches, spec.costs);
    case ScheduleKind::VMin:
      return v_min_schedule(spec.ranks, spec.microbatches, spec.costs);
  }
  throw InternalError("a kind of schedule without a generator");
}

PipelineSchedule generate(const ScheduleSpec& spec) { return append_step(insert_messages(compute_schedule(spec))); }

}  // namespace tessera
