// A config as text: what a run directory keeps, and what is compared when the run goes on.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace tessera {

class RunConfig;  // launch/run.proto

// Text format in the order of the schema: equal configs give equal text, and parsing it gives the config back.
std::string to_text(const RunConfig& config);

// XXH3, 128 bits, of to_text: 32 hex digits.
std::string config_hash(const RunConfig& config);

// A config as to_text wrote it. Throws UsageError with file, line and column.
void read_saved_config(const std::string& file, RunConfig& config);

// One field that differs.
struct Change {
  std::string section;  // "lr_schedule"
  std::string path;     // "lr_schedule.learning_rate"
  std::string saved;    // values as text; "(none)" for an element that only the other has
  std::string now;
};

// Where two resolved configs differ in what may not change in mid-run: sections model, data, optimizer and lr_schedule.
std::vector<Change> changed_sections(const RunConfig& saved, const RunConfig& now);

// Throws UsageError naming every change in a section that `allowed` (the values of --allow-change) does not list, or a
// name in `allowed` that is no such section.
void check_changes(const RunConfig& saved, const RunConfig& now, std::span<const std::string> allowed);

}  // namespace tessera
