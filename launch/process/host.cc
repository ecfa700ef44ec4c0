#include "launch/process/host.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/check.h"

namespace tessera {
namespace {

// The number that `text` begins with: Slurm writes "4(x2),3" for four tasks on each of two hosts and three on a third.
std::optional<int> leading_number(const char* text) {
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const auto result = std::from_chars(text, text + std::strlen(text), value);
  if (result.ec != std::errc() || value < 0) return std::nullopt;
  return value;
}

std::optional<int> first_number(const Environment& environment, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto value = leading_number(environment(name))) return value;
  }
  return std::nullopt;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  const std::string_view full(name.data());
  return std::string(full.substr(0, full.find('.')));
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

Environment process_environment() {
  return [](const char* name) -> const char* { return std::getenv(name); };
}

LaunchedRank launched_rank(const Environment& environment) {
  LaunchedRank launched;
  const auto rank = first_number(environment, {"OMPI_COMM_WORLD_RANK", "PMI_RANK"});
  const auto size = first_number(environment, {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"});
  if (rank && size) {
    launched.launched = true;
    launched.rank = *rank;
    launched.size = std::max(1, *size);
  } else if (environment("SLURM_STEP_ID") != nullptr && environment("SLURM_PROCID") != nullptr) {
    // srun sets these for its tasks; sbatch sets SLURM_PROCID=0 for the script too, but no step id.
    launched.launched = true;
    launched.rank = first_number(environment, {"SLURM_PROCID"}).value_or(0);
    launched.size = std::max(1, first_number(environment, {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}).value_or(1));
  }
  if (!launched.launched) return launched;
  const auto local = first_number(environment, {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS",
                                                "SLURM_NTASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE"});
  // A launcher that does not say is taken to have put all ranks here: too few threads cost time, too many cost more.
  launched.local_ranks = std::clamp(local.value_or(launched.size), 1, launched.size);
  const auto local_rank = first_number(environment, {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"});
  launched.local_rank = local_rank.value_or(launched.rank % launched.local_ranks);
  return launched;
}

ThreadShare share_threads(int requested, int local_ranks, int cores) {
  if (requested < 0) {
    throw UsageError(
        fmt::format("run.threads = {} must be at least 1, or 0 for an equal share of the cores", requested));
  }
  ThreadShare share;
  share.threads = requested > 0 ? requested : std::max(1, cores / local_ranks);
  const int64_t total = static_cast<int64_t>(share.threads) * local_ranks;
  if (total > cores) {
    share.warning = fmt::format("{} rank{} of {} thread{} on this host share {} usable core{}: expect slow steps",
                                local_ranks, local_ranks == 1 ? "" : "s", share.threads, share.threads == 1 ? "" : "s",
                                cores, cores == 1 ? "" : "s");
    if (requested > 0 && local_ranks <= cores) {
      share.warning += fmt::format(" (run.threads = {} fits)", std::max(1, cores / local_ranks));
    }
  }
  return share;
}

ProcessMemory process_memory() {
  std::ifstream status("/proc/self/status");
  ProcessMemory memory;
  int found = 0;
  std::string line;
  while (std::getline(status, line)) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view key = std::string_view(line).substr(0, colon);
    int64_t* field = key == "VmRSS"      ? &memory.resident
                     : key == "RssAnon"  ? &memory.anonymous
                     : key == "RssFile"  ? &memory.file
                     : key == "RssShmem" ? &memory.shared
                     : key == "VmHWM"    ? &memory.peak_resident
                                         : nullptr;
    if (field == nullptr) continue;
    *field = std::strtoll(line.c_str() + colon + 1, nullptr, 10) * 1024;  // "VmRSS:     1234 kB"
    ++found;
  }
  if (found != 5) throw IoError("/proc/self/status does not list this process's memory; is /proc mounted?");
  return memory;
}

std::string format_bytes(double bytes) {
  constexpr std::array<const char*, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  const int digits = unit == 0 || std::abs(bytes) >= 100 ? 0 : std::abs(bytes) >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}", bytes, digits, kUnits[unit]);
}

std::string format_short_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds >= 9.95) return format_duration(seconds);
  return seconds < 0.9995 ? fmt::format("{:.0f} ms", 1e3 * seconds) : fmt::format("{:.1f} s", seconds);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto s = static_cast<int64_t>(std::min(std::round(seconds), 1e15));
  if (s >= 86400) return fmt::format("{}d {:02}h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m {:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

}  // namespace tessera
