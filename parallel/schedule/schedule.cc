#include "parallel/schedule/schedule.h"

#include <fmt/format.h>

#include "tensor/check.h"

namespace tessera {

const char* name(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return "FORWARD";
    case ActionKind::BackwardInput:
      return "BACKWARD_INPUT";
    case ActionKind::BackwardWeight:
      return "BACKWARD_WEIGHT";
    case ActionKind::SendForward:
      return "SEND_FORWARD";
    case ActionKind::ReceiveForward:
      return "RECEIVE_FORWARD";
    case ActionKind::SendBackward:
      return "SEND_BACKWARD";
    case ActionKind::ReceiveBackward:
      return "RECEIVE_BACKWARD";
    case ActionKind::Recompute:
      return "RECOMPUTE";
    case ActionKind::Offload:
      return "OFFLOAD";
    case ActionKind::Fetch:
      return "FETCH";
    case ActionKind::Gather:
      return "GATHER";
    case ActionKind::Release:
      return "RELEASE";
    case ActionKind::Reduce:
      return "REDUCE";
    case ActionKind::Norm:
      return "NORM";
    case ActionKind::Step:
      return "STEP";
  }
  return "?";
}

bool is_compute(ActionKind kind) { return kind <= ActionKind::BackwardWeight; }

bool is_message(ActionKind kind) { return kind >= ActionKind::SendForward && kind <= ActionKind::ReceiveBackward; }

bool has_microbatch(ActionKind kind) { return kind < ActionKind::Gather; }

std::vector<int> loop_placement(int ranks, int chunks) {
  TESSERA_CHECK(ranks >= 1 && chunks >= 1, fmt::format("{} ranks of {} chunks", ranks, chunks));
  std::vector<int> rank_of_stage(static_cast<size_t>(ranks) * chunks);
  for (size_t s = 0; s < rank_of_stage.size(); ++s) rank_of_stage[s] = static_cast<int>(s) % ranks;
  return rank_of_stage;
}

std::vector<int> v_placement(int ranks) {
  TESSERA_CHECK(ranks >= 1, fmt::format("{} ranks", ranks));
  std::vector<int> rank_of_stage(2 * static_cast<size_t>(ranks));
  for (int s = 0; s < 2 * ranks; ++s) rank_of_stage[s] = s < ranks ? s : 2 * ranks - 1 - s;
  return rank_of_stage;
}

std::string schedule_size_problem(int64_t stages, int64_t microbatches) {
  const double passes = static_cast<double>(stages) * static_cast<double>(microbatches);
  if (passes <= static_cast<double>(kMostPasses)) return "";
  return fmt::format("{} stages of {} microbatches are {:.0f} passes: a schedule has at most {},{:03}", stages,
                     microbatches, passes, kMostPasses / 1000, kMostPasses % 1000);
}

}  // namespace tessera
