// Keeps a run's record (scaling/training_record.proto) in its directory, on rank 0.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/metrics/step_metrics.h"
#include "model/cost.h"

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

class Recording {
 public:
  // FLOPs of steps of so many token slots together, in which `pairs` (query, key) pairs saw each other.
  using FlopsOf = std::function<StepFlops(double slots, double pairs)>;

  static constexpr int64_t kMostPoints = 2048;  // of the loss curve

  // `facts`: what stays as it is while the run goes on. What came before `resumed_step` (0: nothing did) is taken from
  // the lines of `metrics_path`; where some are missing, the record says less, never something wrong.
  Recording(std::string directory, const TrainingRecord& facts, FlopsOf flops, const std::string& metrics_path,
            int64_t resumed_step);
  ~Recording();

  void observe(const StepMetrics& metrics);
  void observe(const EvaluationMetrics& metrics);

  // Replaces DIRECTORY/record.textproto. Throws IoError. `unique_share`: of the tokens, those seen at least once.
  void write_unfinished(int64_t samples, double unique_share) { write(samples, unique_share, false, ""); }
  void write_finished(int64_t samples, double unique_share) { write(samples, unique_share, true, ""); }
  void write_diverged(int64_t samples, double unique_share, const std::string& reason) {
    write(samples, unique_share, false, reason);
  }

 private:
  void write(int64_t samples, double unique_share, bool finished, const std::string& reason);
  void thin();

  std::string directory_;
  std::unique_ptr<TrainingRecord> record_;
  FlopsOf flops_;
  int64_t seen_ = 0;  // steps whose pairs are known
  double pairs_ = 0, slots_ = 0;
  struct Noise {
    int64_t step;
    double square, noise;
  };
  std::vector<Noise> noise_;
};

}  // namespace tessera
