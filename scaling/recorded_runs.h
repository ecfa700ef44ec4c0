// The runs of run and sweep directories, from their records.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "scaling/runs.h"

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

// What a fit calls N.
enum class Count : uint8_t {
  Total,         // every element
  NonEmbedding,  // without what is looked up and without the product that makes logits (Kaplan et al. 2020)
  Compute,       // FLOPs / (6 D): attention and logits included, so that C = 6 N D is exact
};
Count count_of(std::string_view name);  // total, non-embedding, compute; UsageError for others

double parameters_of(const TrainingRecord& record, Count count);

// The records of paths (run_directories(), record_file.h), by path.
std::vector<TrainingRecord> read_records(const std::vector<std::string>& paths);

// The loss is the validation loss after the last step, on `validation`, or on the only set when that is empty. Runs
// that diverged, did not finish or have no such loss are left out by name. Throws DataError when none is left, or when
// there are several sets and none is named.
RunTable table_of(const std::vector<TrainingRecord>& records, Count count, const std::string& validation = "");

}  // namespace tessera
