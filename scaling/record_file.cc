#include "scaling/record_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "scaling/text_file.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

std::string file_of(const std::string& directory) { return directory + "/" + kRecordFile; }

}  // namespace

void write_record(const std::string& directory, const TrainingRecord& record) {
  replace_file(file_of(directory), message_text(record));
}

void read_record(const std::string& directory, TrainingRecord& record) {
  const std::string problem = parse_message(read_file(file_of(directory)), file_of(directory), record);
  if (!problem.empty()) throw DataError(problem);
}

bool has_record(const std::string& directory) { return fs::is_regular_file(file_of(directory)); }

std::vector<std::string> run_directories(const std::string& path) {
  if (!fs::is_directory(path)) throw DataError(fmt::format("{}: no such run or sweep directory", path));
  if (has_record(path)) return {path};
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory() && has_record(entry.path())) found.push_back(entry.path());
  if (found.empty())
    throw DataError(
        fmt::format("{}: neither it nor a directory in it has a {}, which `tessera train` writes into its run's "
                    "directory",
                    path, kRecordFile));
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace tessera
