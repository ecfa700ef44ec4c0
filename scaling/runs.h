// Finished runs as a table, and what a fit cannot use of it.
//
// CSV with a header line, comma-separated, fields quoted with " where they hold commas. Columns:
//   parameters, tokens, loss                      needed
//   name, variant, tokenizer, dataset, state      words; state is finished (or empty), diverged, unfinished
//   unique_tokens, seed, batch_tokens, learning_rate, flops, steps   numbers; flops unless it is 6 N D
// Other columns are ignored.
#pragma once

#include <string>
#include <vector>

#include "scaling/fit/form.h"

namespace tessera {

struct Run {
  std::string name;  // "line 12" where the table has none
  std::string variant, tokenizer, dataset, state;
  double parameters = 0, tokens = 0, loss = 0, unique_tokens = 0, batch_tokens = 0, learning_rate = 0, steps = 0,
         flops = 0;
  Sample sample() const;
};

struct RunTable {
  std::vector<Run> runs;              // that can be fitted
  std::vector<std::string> left_out;  // one line a run: its name, the value, and why
};

// Reads a table and sets aside runs that diverged (loss not finite), did not finish, or have numbers that are not
// positive. Throws IoError when it cannot be read, and DataError, with the line, when a needed column or a number is
// missing or the table is empty.
RunTable read_runs(const std::string& path);
RunTable parse_runs(const std::string& text, const std::string& path);

// Why a run cannot be fitted; empty when it can.
std::string problem_of(const Run& run);

// Throws DataError when the design cannot tell the form's constants apart, by name, with what can be fitted:
// too few runs or different sizes or budgets, all runs at one N, D or ratio D / N.
void check_design(const Form& form, const std::vector<Sample>& samples);

// Keeps the runs whose `column` (variant, tokenizer, dataset) is `value`. Throws UsageError when there is none.
void keep_only(RunTable& table, const std::string& column, const std::string& value);
// Throws DataError when runs of several tokenizers or data sets are mixed, whose losses do not compare: which, how many
// of each, and how to pick one.
void check_one_kind(const RunTable& table);

std::vector<Sample> samples_of(const std::vector<Run>& runs);

}  // namespace tessera
