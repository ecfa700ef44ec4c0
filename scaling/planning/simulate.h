// The time that a schedule takes, from the times of its actions.
#pragma once

#include <vector>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"

namespace tessera {

// FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT and the latency of a message are ScheduleCosts; the rest of an action's
// time:
struct SimulationCosts {
  ScheduleCosts passes = {};
  double recompute = 0;  // of a stage's FORWARD, by which RECOMPUTE of the whole stage takes as long (1: all is redone)
  double reduce = 0;     // REDUCE of a whole stage
  double gather = 0;     // GATHER of a whole stage
  double offload = 0;    // OFFLOAD, and FETCH, of one microbatch
  double norm = 0, step = 0;
  // A stage's number of blocks, to divide what works block by block; empty: one each.
  std::vector<int> blocks = {};
};

struct TimedAction {
  Action action;
  double start = 0, end = 0;  // messages: when they were posted (start == end)
};

struct Simulation {
  std::vector<std::vector<TimedAction>> ranks;
  double makespan = 0;       // until the last rank has done its last action before NORM
  double span = 0;           // the longest time from a rank's first compute to its last action before NORM
  double norm_and_step = 0;  // after that, on all ranks together
  std::vector<double> busy;  // by rank: time in actions before NORM
  // The share of the ranks' time that they do nothing: ranks begin together and wait for each other in NORM.
  double bubble = 0;
  // (span - m * work) / span with the work of one microbatch on the busiest rank: Qi et al. 2023, where ranks begin
  // when their first action can and do not wait for each other at the end.
  double span_bubble = 0;
};

// Runs the lists in time: an action begins when the one before it on its rank has ended and what it waits for is there.
// A message travels for the latency from when it is sent and its receive is posted, whichever is later. A list without
// messages is right, too: it travels from the end of the compute that made it. Waiting for a buffer to be taken up is
// as in verify() with its figures. Throws UsageError on a schedule that does not run to its end.
Simulation simulate(const PipelineSchedule& schedule, const SimulationCosts& costs);

}  // namespace tessera
