#include "launch/metrics/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "tensor/check.h"

namespace tessera {
namespace {

[[noreturn]] void fail(const char* what, const std::string& path) {
  throw IoError(fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}

void write_all(int file, const char* data, size_t size, const std::string& path) {
  while (size > 0) {
    const ssize_t written = ::write(file, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path);
    data += written;
    size -= static_cast<size_t>(written);
  }
}

// The step of a line, or nothing when the line is damaged.
std::optional<int64_t> step_of(const std::string& line) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

void sync_directory_of(const std::string& path) {
  const auto parent = std::filesystem::absolute(path).parent_path();
  const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || ::fsync(directory) != 0) {
    const int error = errno;
    if (directory >= 0) ::close(directory);
    errno = error;
    fail("sync directory", parent.string());
  }
  ::close(directory);
}

// Writes the lines to keep into `target`, and returns what was left out, or nothing when the file is good as it is.
MetricsLog::Repair copy_kept_lines(const std::string& path, const std::string& target, int64_t resumed_step,
                                   bool* changed) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("read", path);
  std::ofstream out(target, std::ios::binary | std::ios::trunc);
  if (!out) fail("make", target);
  MetricsLog::Repair repair;
  bool ends_with_newline = true;
  std::string line;
  while (std::getline(in, line)) {
    ends_with_newline = !in.eof();
    const auto step = step_of(line);
    if (!step) {
      ++repair.dropped_damaged;
    } else if (*step > resumed_step) {
      ++repair.dropped_steps;
    } else {
      out << line << '\n';
    }
  }
  if (in.bad()) fail("read", path);
  out.flush();
  if (!out) fail("write", target);
  *changed = repair.dropped_damaged + repair.dropped_steps > 0 || !ends_with_newline;
  return repair;
}

// JSON has no word for infinity and NaN.
void add_number(fmt::memory_buffer& out, std::string_view key, double value) {
  const char* const comma = out.size() > 0 && out.data()[out.size() - 1] == '{' ? "" : ",";
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{}\"{}\":{}", comma, key, value);
  } else {
    fmt::format_to(std::back_inserter(out), "{}\"{}\":null", comma, key);
  }
}

void add_of_rank(fmt::memory_buffer& out, const StepMetrics::OfRank& m) {
  add_number(out, "compute_seconds", m.compute_seconds);
  add_number(out, "bubble_seconds", m.bubble_seconds);
  add_number(out, "data_seconds", m.data_seconds);
  add_number(out, "optimizer_seconds", m.optimizer_seconds);
  add_number(out, "host_seconds", m.host_seconds);
  add_number(out, "communication_seconds", m.communication_seconds);
  fmt::format_to(std::back_inserter(out), ",\"memory_bytes\":{:.0f}", m.memory_bytes);
}

// ,"communication":{"tp":{"seconds":0.1,"all_gather":4096},...}: bytes by kind of call; a kind that sent none is left
// out.
void add_traffic(fmt::memory_buffer& out, const std::map<std::string, Traffic>& traffic) {
  const auto to = std::back_inserter(out);
  fmt::format_to(to, ",\"communication\":{{");
  const char* separator = "";
  for (const auto& [group, use] : traffic) {
    fmt::format_to(to, "{}\"{}\":{{\"seconds\":{}", separator, group, use.seconds);
    for (int kind = 0; kind < kCollectives; ++kind) {
      if (use.bytes[kind] > 0) fmt::format_to(to, ",\"{}\":{}", name(static_cast<Collective>(kind)), use.bytes[kind]);
    }
    fmt::format_to(to, "}}");
    separator = ",";
  }
  fmt::format_to(to, "}}");
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path, int64_t resumed_step) : path_(path) {
  if (std::filesystem::is_regular_file(path)) {  // not a device or a pipe
    const std::string kept = path + ".tmp";
    bool changed = false;
    repair_ = copy_kept_lines(path, kept, resumed_step, &changed);
    if (changed) {
      const int file = ::open(kept.c_str(), O_WRONLY | O_CLOEXEC);
      if (file < 0 || ::fsync(file) != 0) fail("sync", kept);
      ::close(file);
      if (::rename(kept.c_str(), path.c_str()) != 0) fail("replace", path);
      sync_directory_of(path);
    } else {
      ::unlink(kept.c_str());
    }
  }
  file_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0) fail("open", path);
}

MetricsLog::~MetricsLog() {
  if (file_ >= 0) ::close(file_);
}

void MetricsLog::write(const StepMetrics& m) {
  line_.clear();
  fmt::format_to(std::back_inserter(line_), "{{\"step\":{},\"tokens\":{}", m.step, m.tokens);
  add_number(line_, "loss", m.loss);
  add_number(line_, "grad_norm", m.grad_norm);
  add_number(line_, "learning_rate", m.learning_rate);
  add_number(line_, "step_seconds", m.step_seconds);
  add_number(line_, "tokens_per_second", m.tokens_per_second);
  add_number(line_, "mfu", m.mfu);
  fmt::format_to(std::back_inserter(line_), ",\"attention_pairs\":{},\"slots\":{}", m.attention_pairs, m.slots);
  if (std::isfinite(m.gradient_square) && std::isfinite(m.gradient_noise)) {
    add_number(line_, "gradient_square", m.gradient_square);
    add_number(line_, "gradient_noise", m.gradient_noise);
  }
  add_of_rank(line_, m.own);
  fmt::format_to(std::back_inserter(line_), ",\"mean\":{{");
  add_of_rank(line_, m.mean);
  fmt::format_to(std::back_inserter(line_), "}},\"worst\":{{");
  add_of_rank(line_, m.worst);
  line_.push_back('}');
  add_traffic(line_, m.traffic);
  line_.push_back('}');
  append();
}

void MetricsLog::write(const EvaluationMetrics& m) {
  line_.clear();
  fmt::format_to(std::back_inserter(line_), "{{\"step\":{}", m.step);
  add_number(line_, "validation_loss", m.validation_loss);
  fmt::format_to(std::back_inserter(line_), ",\"dataset\":{}}}", nlohmann::json(m.dataset).dump());
  append();
}

void MetricsLog::append() {
  line_.push_back('\n');
  write_all(file_, line_.data(), line_.size(), path_);
}

void MetricsLog::sync() {
  if (::fsync(file_) != 0) fail("sync", path_);
}

}  // namespace tessera
