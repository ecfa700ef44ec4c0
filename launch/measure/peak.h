// The rate of matrix products that a run's MFU is relative to: measured once, kept in the run's record, and used again
// when the run goes on with the same machines, so that its MFU is comparable from start to start.
#pragma once

#include <string>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

class TrainingRecord;  // scaling/training_record.proto

struct Peak {
  double measured = 0;    // FLOP/s of all ranks together; 0: not measured
  double data_sheet = 0;  // the same as the GPUs' data sheet has it, dense, in BF16; 0: not known, or no GPU
  std::string machine;    // of rank 0: processor, device, ranks, threads and dtype
};

// What data sheets say of a GPU of this name ("NVIDIA H100 80GB HBM3"): dense BF16 FLOP/s, as in configs/hardware; 0:
// not known.
double data_sheet_flops(const std::string& device);

// The machine of rank 0, with nothing measured. gpu: its name; empty: the CPU.
Peak peak_of(const std::string& gpu, int ranks, int threads, DType compute);

// Measures the rate of all ranks at once, as they compute when they train: several sizes (launch/measure/gemm_peak.h),
// in rounds that all ranks begin together, for about so many seconds, at least two rounds; the best round counts.
// Collective.
double measure_peak(Context& context, Comm& world, DType compute, double seconds);

// Sets the measured rate from a record of the same machine; returns whether there was one.
bool reuse_peak(const TrainingRecord& record, Peak& peak);
void write_peak(const Peak& peak, TrainingRecord& record);

// "412 GFLOP/s measured (all ranks, F32)", and for GPUs their data sheet's; reused: from the run's record.
enum class PeakOrigin { Measured, Recorded };
std::string peak_text(const Peak& peak, PeakOrigin origin);

}  // namespace tessera
