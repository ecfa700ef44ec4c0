// A sweep as a list: which runs, from which trunks, at what cost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace tessera {

class SweepConfig;  // scaling/sweep.proto

// A run config with every default in place, and what scaling/ asks of it: made by launch/, which knows configs.
struct DescribedRun {
  std::shared_ptr<const google::protobuf::Message> config;
  double parameters = 0, non_embedding = 0;  // SweepConfig::Count
  double flops_per_step = 0;                 // each sample one document
  int64_t batch_tokens = 0;                  // of a step
  int64_t warmup_steps = 0;
  bool wsd = false;             // the learning rate's schedule
  double available_tokens = 0;  // of all training sources; 0: not known
};
// The base config under these overrides. Throws UsageError.
using DescribeRun = std::function<DescribedRun(const std::vector<std::string>& overrides)>;

struct PlannedRun {
  std::string name, size;
  std::string directory;
  std::vector<std::string> overrides;
  DescribedRun run;
  int64_t steps = 0, tokens = 0;
  double flops = 0;  // of the whole run, what its trunk did for it included
  int trunk = -1;    // that it branches from; -1: none
  int64_t from = 0;  // the trunk's step that it starts from
  double flops_to_do() const { return run.flops_per_step * static_cast<double>(steps - from); }
};

struct PlannedTrunk {
  std::string name, size;
  std::string directory;  // DIR/trunks/NAME: no run that a fit would take
  std::vector<std::string> overrides;
  DescribedRun run;
  std::vector<int64_t> stops;  // ascending: where runs branch off
  double flops_to_do() const { return run.flops_per_step * static_cast<double>(stops.back()); }
};

struct SweepPlan {
  std::string directory;
  std::vector<PlannedRun> runs;  // by cost, trunks' runs together
  std::vector<PlannedTrunk> trunks;
  double flops_to_do() const;
};

// Throws UsageError naming field, value, and what would fit: sizes without a name or with one twice, ladders without a
// budget or of a size that there is not, a trunk without WSD, budgets too short for warm-up and decay.
SweepPlan plan_sweep(const SweepConfig& config, const DescribeRun& describe);

// "350k", "1.31M", "6.4G": three digits.
std::string short_number(double value);

}  // namespace tessera
