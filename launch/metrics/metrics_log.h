// metrics.jsonl: one JSON object a line, for machines to read.
//
// A step's line has step, tokens, loss, grad_norm, learning_rate, step_seconds, tokens_per_second, mfu,
// attention_pairs, slots, at some steps gradient_square and gradient_noise; then of rank 0 where its time went and its
// resident memory: compute_seconds, bubble_seconds, data_seconds, optimizer_seconds, host_seconds,
// communication_seconds and memory_bytes. The objects `mean` and `worst` have the same keys: the mean over all ranks,
// and of each the largest that any rank has. `communication` has rank 0's calls by group. An evaluation's line
// has step, validation_loss, dataset. A value that is not finite is written as null, which JSON can
// hold. Each line is written by one system call, so that a crash can cut only the last one, and tail -f shows whole
// lines.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "launch/metrics/step_metrics.h"

namespace tessera {

class MetricsLog {
 public:
  // What opening changed in a file that was there.
  struct Repair {
    int64_t dropped_steps = 0;    // lines of steps after the one resumed from
    int64_t dropped_damaged = 0;  // lines that are no JSON object with a step: the last one, cut by a crash
  };

  static constexpr int64_t kFresh = -1;

  // Opens `path` for appending, and makes it when missing. A run that resumes from the checkpoint of step
  // `resumed_step` will write the later steps again, so their lines are dropped first (kFresh keeps nothing): what is
  // kept goes to a new file, which replaces the old one by rename, so that a crash leaves either. Throws IoError.
  MetricsLog(const std::string& path, int64_t resumed_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Append a line. Throw IoError when the file cannot take it. The first allocates nothing once it has been called.
  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);

  // Returns when all lines are on the disk: before a checkpoint is published. Throws IoError.
  void sync();

  const Repair& repair() const { return repair_; }

 private:
  void append();  // line_ and a newline

  std::string path_;
  int file_ = -1;
  Repair repair_;
  fmt::memory_buffer line_;
};

}  // namespace tessera
