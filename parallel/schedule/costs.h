// What a schedule's actions cost: measured, or one unit each.
#pragma once

#include <span>
#include <string>
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

  // Sets one part of all stages: from one time, of a rank, which its stages share, or from one for each stage. Throws
  // UsageError, in which `what` names the times, when they are neither or a time is negative or no number.
  void set(double StageCosts::*part, std::span<const double> times, int ranks, const std::string& what);
};

}  // namespace tessera
