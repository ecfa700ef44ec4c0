#include "scaling/planning/simulate.h"

#include <algorithm>
#include <limits>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kUnknown = -1;

// When each (stage, microbatch) had something done to it.
class Moments {
 public:
  Moments(int stages, int microbatches)
      : microbatches_(microbatches), times_(static_cast<size_t>(stages) * microbatches, kUnknown) {}

  double& operator()(int stage, int microbatch) {
    return times_[static_cast<size_t>(stage) * microbatches_ + microbatch];
  }

 private:
  int microbatches_;
  std::vector<double> times_;
};

class Clocks {
 public:
  Clocks(const PipelineSchedule& schedule, const SimulationCosts& costs)
      : schedule_(schedule),
        costs_(costs),
        forward_(schedule.stages(), schedule.microbatches),
        backward_(schedule.stages(), schedule.microbatches),
        sent_forward_(schedule.stages(), schedule.microbatches),
        received_forward_(schedule.stages(), schedule.microbatches),
        sent_backward_(schedule.stages(), schedule.microbatches),
        received_backward_(schedule.stages(), schedule.microbatches),
        now_(schedule.ranks.size(), 0.0) {
    result_.ranks.resize(schedule.ranks.size());
    result_.busy.resize(schedule.ranks.size(), 0.0);
    for (const Schedule& list : schedule.ranks) {
      messages_ |= std::any_of(list.begin(), list.end(), [](const Action& a) { return is_message(a.kind); });
    }
    if (messages_) buffers_ = verify(schedule).stages;
  }

  Simulation run() {
    std::vector<size_t> at(schedule_.ranks.size(), 0);
    for (bool moved = true; moved;) {
      moved = false;
      for (int r = 0; r < static_cast<int>(at.size()); ++r) {
        const Schedule& list = schedule_.ranks[r];
        for (; at[r] < list.size() && do_action(r, list[at[r]]); ++at[r]) moved = true;
      }
    }
    for (size_t r = 0; r < at.size(); ++r) {
      if (at[r] < schedule_.ranks[r].size()) throw UsageError("simulation: the schedule waits for itself in a circle");
    }
    sum_up();
    return std::move(result_);
  }

 private:
  // Whether the action could be done; if not, what it waits for is not known yet.
  bool do_action(int rank, const Action& a) {
    double start = now_[rank];
    double length = 0;
    const double share = share_of_stage(a);
    switch (a.kind) {
      case ActionKind::Forward:
        if (a.blocks.first == 0 && !wait_for_input(a, start)) return false;
        length = share * costs_.passes.stage(a.stage).forward;
        break;
      case ActionKind::BackwardInput:
        if (a.blocks.last == BlockRange::kToEnd && !wait_for_gradient(a, start)) return false;
        length = share * costs_.passes.stage(a.stage).backward_input;
        break;
      case ActionKind::BackwardWeight:
        length = share * costs_.passes.stage(a.stage).backward_weight;
        break;
      case ActionKind::Recompute:
        length = share * costs_.recompute * costs_.passes.stage(a.stage).forward;
        break;
      case ActionKind::Reduce:
        length = share * costs_.reduce;
        break;
      case ActionKind::Gather:
        length = share * costs_.gather;
        break;
      case ActionKind::Offload:
      case ActionKind::Fetch:
        length = costs_.offload;
        break;
      case ActionKind::Norm:
      case ActionKind::Step:
        return true;  // apart: sum_up()
      case ActionKind::ReceiveForward:
        if (!wait_for_buffer(a, start)) return false;
        received_forward_(a.stage, a.microbatch) = start;
        break;
      case ActionKind::ReceiveBackward:
        // Into the output, when that has been taken up.
        if (!wait_for(received_forward_(a.stage + 1, a.microbatch), 0, start)) return false;
        received_backward_(a.stage, a.microbatch) = start;
        break;
      case ActionKind::SendForward:
        sent_forward_(a.stage, a.microbatch) = start;
        break;
      case ActionKind::SendBackward:
        sent_backward_(a.stage, a.microbatch) = start;
        break;
      case ActionKind::Release:
        break;
    }
    const double end = start + length;
    if (a.kind == ActionKind::Forward && a.blocks.last == BlockRange::kToEnd) forward_(a.stage, a.microbatch) = end;
    if (a.kind == ActionKind::BackwardInput && a.blocks.first == 0) backward_(a.stage, a.microbatch) = end;
    now_[rank] = end;
    result_.busy[rank] += length;
    result_.ranks[rank].push_back({a, start, end});
    return true;
  }

  static bool wait_for(double moment, double after, double& start) {
    if (moment == kUnknown) return false;
    start = std::max(start, moment + after);
    return true;
  }

  bool wait_for_input(const Action& a, double& start) {
    if (a.stage == 0) return true;
    if (!schedule_.receives(a.stage)) return wait_for(forward_(a.stage - 1, a.microbatch), 0, start);
    if (!messages_) return wait_for(forward_(a.stage - 1, a.microbatch), costs_.passes.latency, start);
    return wait_for(received_forward_(a.stage, a.microbatch), costs_.passes.latency, start) &&
           wait_for(sent_forward_(a.stage - 1, a.microbatch), costs_.passes.latency, start);
  }

  bool wait_for_gradient(const Action& a, double& start) {
    if (a.stage + 1 == schedule_.stages()) return true;
    if (!schedule_.sends(a.stage)) return wait_for(backward_(a.stage + 1, a.microbatch), 0, start);
    if (!messages_) return wait_for(backward_(a.stage + 1, a.microbatch), costs_.passes.latency, start);
    return wait_for(received_backward_(a.stage, a.microbatch), costs_.passes.latency, start) &&
           wait_for(sent_backward_(a.stage + 1, a.microbatch), costs_.passes.latency, start);
  }

  // An input is reused when the gradient in it has been sent and taken up (forward only: it has been read long ago).
  bool wait_for_buffer(const Action& a, double& start) {
    const int before = a.microbatch - buffers_[a.stage].inputs;
    if (before < 0 || forward_(a.stage, before) == kUnknown) return true;
    if (backward_(a.stage, before) == kUnknown) return true;  // forward only
    return wait_for(received_backward_(a.stage - 1, before), 0, start);
  }

  double share_of_stage(const Action& a) const {
    if (a.blocks.whole()) return 1;
    const int blocks = costs_.blocks.empty() ? 1 : costs_.blocks[a.stage];
    const int last = std::min(a.blocks.last, blocks);
    return static_cast<double>(std::max(0, last - a.blocks.first)) / blocks;
  }

  void sum_up() {
    double work = 0;
    for (size_t r = 0; r < result_.ranks.size(); ++r) {
      const std::vector<TimedAction>& list = result_.ranks[r];
      const auto first =
          std::find_if(list.begin(), list.end(), [](const TimedAction& t) { return is_compute(t.action.kind); });
      result_.makespan = std::max(result_.makespan, now_[r]);
      if (first != list.end()) result_.span = std::max(result_.span, now_[r] - first->start);
      work = std::max(work, result_.busy[r]);
    }
    result_.norm_and_step = costs_.norm + costs_.step;
    for (int r = 0; r < static_cast<int>(schedule_.ranks.size()); ++r) {
      double at = result_.makespan;
      for (const Action& a : schedule_.ranks[r]) {
        if (a.kind != ActionKind::Norm && a.kind != ActionKind::Step) continue;
        const double end = at + (a.kind == ActionKind::Norm ? costs_.norm : costs_.step);
        result_.ranks[r].push_back({a, at, end});
        at = end;
      }
    }
    double busy = 0;
    for (double each : result_.busy) busy += each;
    const double all = result_.makespan * static_cast<double>(result_.busy.size());
    result_.bubble = all > 0 ? 1 - busy / all : 0;
    result_.span_bubble = result_.span > 0 ? (result_.span - work) / result_.span : 0;
  }

  const PipelineSchedule& schedule_;
  const SimulationCosts& costs_;
  bool messages_ = false;
  std::vector<StageFigures> buffers_;
  Moments forward_, backward_, sent_forward_, received_forward_, sent_backward_, received_backward_;
  std::vector<double> now_;
  Simulation result_;
};

}  // namespace

Simulation simulate(const PipelineSchedule& schedule, const SimulationCosts& costs) {
  TESSERA_CHECK(costs.passes.stages.empty() || static_cast<int>(costs.passes.stages.size()) == schedule.stages(),
                "costs of every stage");
  return Clocks(schedule, costs).run();
}

}  // namespace tessera
