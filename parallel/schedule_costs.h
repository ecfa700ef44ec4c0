// What a schedule's actions cost: measured, or one unit each.
#pragma once

#include <vector>

namespace tessera {

// Time of one microbatch through one stage, in any unit.
struct StageCosts {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
};

struct ScheduleCosts {
  std::vector<StageCosts> stages;  // by stage; empty: the default for all
  double latency = 0;              // of a message between ranks

  const StageCosts& stage(int stage) const {
    static constexpr StageCosts kUnits;
    return stages.empty() ? kUnits : stages[stage];
  }
};

}  // namespace tessera
