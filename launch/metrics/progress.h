// What a person sees: a table of memory when the run starts, then one line per logged step, on rank 0 only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "launch/metrics/step_metrics.h"
#include "scaling/planning/memory.h"

namespace spdlog {
class logger;
}

namespace tessera {

enum class Voice : uint8_t { Speaks, Silent };

// A logger to standard output that prints its messages as they are, each flushed; a silent one (ranks other than 0)
// prints nothing. Belongs to the caller; spdlog's registry is not used.
std::shared_ptr<spdlog::logger> make_console(Voice voice);

// The lines with their total at the end, or with a GPU's and the host's.
std::vector<MemoryLine> with_totals(std::span<const MemoryLine> lines);

// A line of several ranks: the most bytes that any of them has, and the mean.
struct RanksMemoryLine {
  std::string category;
  double worst = 0, mean = 0;
};

// One line each, without a newline at the end: of one rank, with the totals; of several ranks, as they are.
std::string memory_table(std::span<const MemoryLine> lines);
std::string memory_table(std::span<const RanksMemoryLine> lines, int ranks);

// Formats the lines of logged steps, and knows how long the rest will take.
class Progress {
 public:
  // The run goes from `first_step` (steps done before: 0, or the resumed step) to `last_step`.
  Progress(int64_t first_step, int64_t last_step) : done_(first_step), last_step_(last_step) {}

  // Counts a step's time: to be called at every step, logged or not.
  void observe(const StepMetrics& metrics);

  // Seconds that the remaining steps will take: their number times the recent time of a step (an exponential average
  // over about twenty; the first step of the process, which warms caches up, counts only until the second). 0 before
  // any step.
  double remaining_seconds() const;

  // step 120/400  loss 4.0312  lr 2.96e-04  norm 0.81  152 ms  26,947 tok/s  MFU 61.2 %  412 MiB  ETA 42s
  std::string line(const StepMetrics& metrics) const;

 private:
  int64_t done_;
  int64_t last_step_;
  int64_t observed_ = 0;
  double average_seconds_ = 0;
};

}  // namespace tessera
