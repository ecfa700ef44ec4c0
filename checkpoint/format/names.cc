#include "checkpoint/format/names.h"

#include <fmt/core.h>

#include <charconv>

namespace tessera {
namespace {

constexpr std::string_view kStep = "step-";
constexpr std::string_view kTemporary = ".tmp-";

}  // namespace

std::string step_name(int64_t step) { return fmt::format("{}{:08}", kStep, step); }
std::string temporary_name(int64_t step, const std::string& id) { return step_name(step).append(kTemporary) + id; }
std::string shard_name(int rank) { return fmt::format("shard-{:05}.h5", rank); }
std::string shard_index_name(int rank) { return fmt::format("shard-{:05}.index", rank); }

std::optional<int64_t> published_step(std::string_view name) {
  if (!name.starts_with(kStep)) return std::nullopt;
  const std::string_view digits = name.substr(kStep.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size() || step < 0) return std::nullopt;
  if (name != step_name(step)) return std::nullopt;
  return step;
}

std::optional<int64_t> temporary_step(std::string_view name) {
  const size_t suffix = name.find(kTemporary);
  return suffix == std::string_view::npos ? std::nullopt : published_step(name.substr(0, suffix));
}

std::string join(const std::string& directory, std::string_view name) {
  return std::string(directory).append("/").append(name);
}

std::string base_name(const std::string& path) {
  std::string_view rest = path;
  while (rest.size() > 1 && rest.ends_with('/')) rest.remove_suffix(1);
  const size_t slash = rest.rfind('/');
  return std::string(slash == std::string_view::npos || rest.size() == 1 ? rest : rest.substr(slash + 1));
}

}  // namespace tessera
