// Run records on the disk: DIRECTORY/record.textproto.
#pragma once

#include <string>
#include <vector>

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

inline constexpr const char* kRecordFile = "record.textproto";

// Replaces the directory's record by rename: a reader sees the old one or the new one. Throws IoError.
void write_record(const std::string& directory, const TrainingRecord& record);

// Overwrites record. Throws IoError when there is none, DataError, with line and column, when it is no record.
void read_record(const std::string& directory, TrainingRecord& record);

bool has_record(const std::string& directory);

// The run directories that a path stands for: itself when it has a record, else those of its sub-directories that do,
// by name (a sweep's directory). Throws DataError when there are none.
std::vector<std::string> run_directories(const std::string& path);

}  // namespace tessera
