// What parallel.schedule names, made into the schedule of a training step: a kind that is generated, a file, or a search.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/shape/recompute.h"
#include "parallel/partition.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"

namespace tessera {

class ParallelConfig;  // parallel/parallel.proto

// Whether parallel.schedule may be this: a kind, file:PATH or search.
bool is_schedule(const std::string& text);

// A schedule that every rule of parallel/schedule/verify.h holds for, and what its replay found.
struct VerifiedSchedule {
  PipelineSchedule schedule;
  ScheduleFigures figures;
};

class ScheduleChoice {
 public:
  // parallel: resolved, and must outlive the choice. Reads the schedule's file, where it is one; nothing else ever does.
  // Throws UsageError where the file cannot be read or is not for parallel.pp ranks.
  explicit ScheduleChoice(const ParallelConfig& parallel);

  // Stages of the pipeline, over all its ranks.
  int stages() const;
  // Microbatches that a file's schedule is for; 0 where the schedule is no file.
  int file_microbatches() const;

  // The schedule of a step: generated, searched for, or the file's, with recomputation, messages, gathered weights,
  // reductions and the step as far as a file does not have them. A search runs here, once a call.
  //   microbatches       of a step on each data-parallel rank
  //   replicated_samples parallel.dp * data.micro_batch_size: what a microbatch adds to the global batch
  //   parts              the blocks of each stage
  //   modes              what each block of the model makes again
  // Throws UsageError where the config breaks a rule, and with the lists and an arrow where the schedule would deadlock
  // or exceeds parallel.memory_limit.
  VerifiedSchedule make(int microbatches, int64_t replicated_samples, std::span<const StagePart> parts,
                        std::span<const Recompute> modes) const;

 private:
  PipelineSchedule compute_actions(int microbatches, int64_t replicated_samples) const;
  PipelineSchedule searched(int microbatches) const;
  int chunks() const;  // stages on each rank, of a schedule that is no file
  void check_blocks(const PipelineSchedule& schedule, std::span<const StagePart> parts) const;
  void require(bool fits, const std::string& rule) const;

  const ParallelConfig& parallel_;
  std::optional<PipelineSchedule> file_;
};

// parallel.blocks_per_stage, or, where it is not set, stages balanced by cost. Throws UsageError where blocks and stages
// do not fit.
std::vector<StagePart> stage_parts(const ParallelConfig& parallel, int stages, const ModelCost& cost);

std::vector<int> blocks_of(std::span<const StagePart> parts);

}  // namespace tessera
