#include "launch/commands/output_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "tensor/check.h"

namespace tessera {

void make_output_directory(const std::string& directory, const std::string& what) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(directory).lexically_normal();
  const bool there = std::filesystem::is_directory(path, error);
  error.clear();
  if (!there) std::filesystem::create_directories(path, error);
  if (!error && ::access(path.c_str(), W_OK) != 0) error = {errno, std::generic_category()};
  if (error) throw IoError(fmt::format("cannot write {}: {}", what, error.message()));
  if (!there) fmt::print(stderr, "made the directory {}\n", path.string());
}

}  // namespace tessera
