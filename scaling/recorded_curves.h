// Loss curves of records, for the laws of whole curves and of batches.
#pragma once

#include <vector>

#include "scaling/law/critical_batch.h"
#include "scaling/law/curve.h"

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

// At most `points` of the recorded steps after warm-up, evenly spread, the last one among them; each loss is the mean
// of the recorded steps since the point before, and stands at their mean step. Learning rates between recorded steps
// are interpolated linearly: exact where every step is recorded, and inside linear parts. Throws DataError, by name,
// for a run without as many steps.
LossCurve curve_of(const TrainingRecord& record, size_t points);

// The step at which the run's validation loss first came down to `loss`, interpolated in log step; 0 when it never did.
double steps_to(const TrainingRecord& record, double loss);

struct BatchLaw {
  double loss = 0;  // that is to be reached
  CriticalBatch critical;
};

// B_crit at up to `targets` losses that all runs reached, from runs of one size with different batches. Throws
// DataError: fewer than two batches, no evaluation on the way, or B_crit outside the batches tried at every loss.
std::vector<BatchLaw> batch_laws(const std::vector<TrainingRecord>& records, int targets = 5);

}  // namespace tessera
