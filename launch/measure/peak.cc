#include "launch/measure/peak.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "launch/measure/gemm_peak.h"
#include "launch/process/host.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

// "412 GFLOP/s", "1.98 PFLOP/s".
std::string rate_text(double flops) {
  constexpr std::array<const char*, 4> kUnits = {"GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"};
  double value = flops * 1e-9;
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kUnits[unit]);
}

}  // namespace

double data_sheet_flops(const std::string& device) {
  // A name that is part of another one comes after it.
  constexpr std::array<std::pair<const char*, double>, 6> kSheets = {{{"GB200", 2.5e15},
                                                                      {"B300", 2.25e15},
                                                                      {"B200", 2.25e15},
                                                                      {"H200", 9.89e14},
                                                                      {"H100", 9.89e14},
                                                                      {"A100", 3.12e14}}};
  for (const auto& [name, flops] : kSheets) {
    if (device.find(name) != std::string::npos) return flops;
  }
  return 0;
}

Peak peak_of(const std::string& gpu, int ranks, int threads, DType compute) {
  return {.data_sheet = ranks * data_sheet_flops(gpu),
          .machine = fmt::format("{}, {} x {} threads, {}", gpu.empty() ? processor_name() : gpu, ranks, threads,
                                 name(compute))};
}

double measure_peak(Context& context, Comm& world, DType compute, double seconds) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  double best = 0;
  for (int round = 0; round < 2 || world.max(std::chrono::duration<double>(Clock::now() - start).count()) < seconds;
       ++round) {
    world.barrier();
    best = std::max(best, world.sum(measure_gemm_peak(context, compute, seconds / 8)));
  }
  return best;
}

bool reuse_peak(const TrainingRecord& record, Peak& peak) {
  if (record.peak().machine() != peak.machine || !(record.peak().measured() > 0)) return false;
  peak.measured = record.peak().measured();
  return true;
}

void write_peak(const Peak& peak, TrainingRecord& record) {
  if (peak.measured <= 0) return;
  record.mutable_peak()->set_measured(peak.measured);
  if (peak.data_sheet > 0) record.mutable_peak()->set_data_sheet(peak.data_sheet);
  record.mutable_peak()->set_machine(peak.machine);
}

std::string peak_text(const Peak& peak, PeakOrigin origin) {
  std::string text = fmt::format("MFU is relative to {}, the matrix products' rate {} ({})", rate_text(peak.measured),
                                 origin == PeakOrigin::Measured ? "measured now" : "in the run's record", peak.machine);
  if (peak.data_sheet > 0) text += fmt::format("; the data sheet says {}", rate_text(peak.data_sheet));
  return text;
}

}  // namespace tessera
