#include "launch/metrics/progress.h"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <vector>

#include "launch/process/host.h"

namespace tessera {
namespace {

// 26947 -> "26,947".
std::string grouped(double value) {
  const std::string digits = fmt::format("{:.0f}", value);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string milliseconds(double seconds) {
  const double ms = seconds * 1e3;
  return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

}  // namespace

std::shared_ptr<spdlog::logger> make_console(Voice voice) {
  spdlog::sink_ptr sink;
  if (voice == Voice::Speaks) {
    sink = std::make_shared<spdlog::sinks::stdout_sink_mt>();
  } else {
    sink = std::make_shared<spdlog::sinks::null_sink_mt>();
  }
  auto logger = std::make_shared<spdlog::logger>("tessera", std::move(sink));
  logger->set_pattern("%v");
  logger->flush_on(spdlog::level::info);
  return logger;
}

std::vector<MemoryLine> with_totals(std::span<const MemoryLine> lines) {
  const auto on_gpu = [](const MemoryLine& line) { return line.device == Device::Cuda; };
  std::vector<MemoryLine> rows(lines.begin(), lines.end());
  if (std::ranges::any_of(rows, on_gpu)) {
    MemoryLine gpu{.category = "total on the GPU"}, host{.category = "total on the host"};
    for (MemoryLine& line : rows) {
      (on_gpu(line) ? gpu : host).bytes += line.bytes;
      if (!on_gpu(line)) line.category += " (host)";
    }
    rows.insert(rows.end(), {gpu, host});
  } else {
    MemoryLine total{.category = "total"};
    for (const MemoryLine& line : rows) total.bytes += line.bytes;
    rows.push_back(total);
  }
  return rows;
}

std::string memory_table(std::span<const MemoryLine> lines) {
  std::vector<RanksMemoryLine> rows;
  for (const MemoryLine& line : with_totals(lines))
    rows.push_back({line.category, static_cast<double>(line.bytes), static_cast<double>(line.bytes)});
  return memory_table(rows, 1);
}

std::string memory_table(std::span<const RanksMemoryLine> lines, int ranks) {
  size_t width = 0;
  for (const RanksMemoryLine& line : lines) width = std::max(width, line.category.size());
  std::string table;
  if (ranks > 1) table = fmt::format("  {:<{}}  {:>10}  {:>10}\n", "memory of a rank", width, "worst", "mean");
  for (const RanksMemoryLine& line : lines) {
    table += fmt::format("  {:<{}}  {:>10}", line.category, width, format_bytes(line.worst));
    if (ranks > 1) table += fmt::format("  {:>10}", format_bytes(line.mean));
    table += "\n";
  }
  table.pop_back();
  return table;
}

void Progress::observe(const StepMetrics& metrics) {
  done_ = metrics.step;
  ++observed_;
  constexpr double kWeight = 0.1;
  if (observed_ <= 2) {
    average_seconds_ = metrics.step_seconds;
  } else {
    average_seconds_ += kWeight * (metrics.step_seconds - average_seconds_);
  }
}

double Progress::remaining_seconds() const {
  return static_cast<double>(std::max<int64_t>(0, last_step_ - done_)) * average_seconds_;
}

std::string Progress::line(const StepMetrics& m) const {
  const std::string last = fmt::format("{}", last_step_);
  std::string text =
      fmt::format("step {:>{}}/{}  loss {:.4f}  lr {:.2e}  norm {:.2f}  {}  {} tok/s  MFU {:.1f} %  {}  ETA {}", m.step,
                  last.size(), last, m.loss, m.learning_rate, m.grad_norm, milliseconds(m.step_seconds),
                  grouped(m.tokens_per_second), 100 * m.mfu, format_bytes(m.worst.memory_bytes),
                  format_duration(remaining_seconds()));
  // Shares of the step that are not compute, where there are any worth a word.
  const auto share = [&](const char* what, double seconds) {
    const double percent = 100 * seconds / m.step_seconds;
    if (m.step_seconds > 0 && percent >= 0.5) text += fmt::format("  {} {:.0f} %", what, percent);
  };
  share("comm", m.mean.communication_seconds);
  share("bubble", m.mean.bubble_seconds);
  share("data", m.mean.data_seconds);
  return text;
}

}  // namespace tessera
