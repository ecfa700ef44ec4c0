#include "scaling/recorded_runs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <set>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

double flops_of(const TrainingRecord& record) {
  return record.flops().matrices() + record.flops().attention() + record.flops().head();
}

// Names say little, so the beginning of the hash of the tokens is put behind.
template <class Sources>
std::string data_of(const Sources& sources) {
  std::vector<std::string> names;
  for (const TrainingRecord::Source& source : sources)
    names.push_back(fmt::format("{}@{}", source.name(), source.identity().substr(0, 8)));
  return fmt::format("{}", fmt::join(names, "+"));
}

std::string problem_of(const TrainingRecord& record) {
  switch (record.status()) {
    case TrainingRecord::DIVERGED:
      return fmt::format("it diverged after step {} of {} ({})", record.step(), record.planned_steps(),
                         record.reason());
    case TrainingRecord::UNFINISHED:
      return fmt::format("unfinished: step {} of {}, and its loss is not that of its budget", record.step(),
                         record.planned_steps());
    case TrainingRecord::FINISHED:
      return "";
  }
  return "no status";
}

}  // namespace

Count count_of(std::string_view name) {
  if (name == "total") return Count::Total;
  if (name == "non-embedding") return Count::NonEmbedding;
  if (name == "compute") return Count::Compute;
  throw UsageError(fmt::format("--count {}: not one of total, non-embedding, compute", name));
}

double parameters_of(const TrainingRecord& record, Count count) {
  const int64_t tables = record.embedding_parameters() + (record.tied() ? 0 : record.head_parameters());
  switch (count) {
    case Count::Total:
      return static_cast<double>(record.parameters());
    case Count::NonEmbedding:
      return static_cast<double>(record.parameters() - tables);
    case Count::Compute:
      return flops_of(record) / (6 * static_cast<double>(record.tokens()));
  }
  return 0;
}

std::vector<TrainingRecord> read_records(const std::vector<std::string>& paths) {
  std::vector<TrainingRecord> records;
  std::set<std::string> seen;
  for (const std::string& path : paths) {
    for (const std::string& directory : run_directories(path)) {
      if (!seen.insert(directory).second) continue;
      read_record(directory, records.emplace_back());
    }
  }
  return records;
}

RunTable table_of(const std::vector<TrainingRecord>& records, Count count, const std::string& validation) {
  std::set<std::string> sets;
  for (const TrainingRecord& record : records)
    for (const auto& source : record.validation()) sets.insert(source.name());
  if (validation.empty() && sets.size() > 1)
    throw DataError(
        fmt::format("the runs have several validation sets ({}): name one with --validation", fmt::join(sets, ", ")));
  if (!validation.empty() && !sets.contains(validation))
    throw UsageError(fmt::format("--validation {}: the runs have {}", validation, fmt::join(sets, ", ")));
  RunTable table;
  for (const TrainingRecord& record : records) {
    Run run;
    run.name = record.name();
    run.variant = record.variant();
    run.tokenizer = record.tokenizer();
    run.dataset = data_of(record.train()) + "/" + data_of(record.validation());
    run.parameters = parameters_of(record, count);
    run.tokens = static_cast<double>(record.tokens());
    run.unique_tokens = static_cast<double>(record.unique_tokens());
    run.batch_tokens = static_cast<double>(record.batch_tokens());
    run.learning_rate = record.learning_rate();
    run.steps = static_cast<double>(record.step());
    run.flops = flops_of(record);
    std::string problem = problem_of(record);
    if (problem.empty()) {
      for (const auto& measured : record.validation_loss())
        if (measured.step() == record.step() && (validation.empty() || measured.dataset() == validation))
          run.loss = measured.loss();
      if (run.loss == 0) problem = "it has no validation loss after its last step: give the config data.validation";
    }
    if (problem.empty()) problem = problem_of(run);
    if (problem.empty())
      table.runs.push_back(std::move(run));
    else
      table.left_out.push_back(fmt::format("{}: {}", run.name, problem));
  }
  if (table.runs.empty())
    throw DataError(fmt::format("no run that could be fitted{}{}", table.left_out.empty() ? "" : "\n  ",
                                fmt::join(table.left_out, "\n  ")));
  return table;
}

}  // namespace tessera
