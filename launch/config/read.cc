#include "launch/config/read.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "launch/config/override.h"
#include "launch/config/parse.h"
#include "launch/run.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::string contents(const std::string& file) {
  if (std::filesystem::is_directory(file))
    throw UsageError(fmt::format("{} is a directory; a config file is needed", file));
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in) throw UsageError(fmt::format("cannot read the config file {}: {}", file, std::strerror(errno)));
  return text;
}

}  // namespace

void read_config(const std::string& file, std::span<const std::string> overrides, RunConfig& config, Origins& origins) {
  const std::string text = contents(file);
  Problems problems;
  origins = {};
  parse_config(file, text, config, origins, problems);
  for (const std::string& override_text : overrides) apply_override(override_text, config, origins, problems);
  problems.throw_if_any();
}

}  // namespace tessera
