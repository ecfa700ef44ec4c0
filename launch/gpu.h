// The GPUs of a run: whether this build and this machine have any, and which one a rank takes.
#pragma once

#include <string>

#include "launch/config/resolve.h"
#include "launch/session.h"
#include "parallel/device_link.h"
#include "tensor/context.h"

namespace tessera {

class RunConfig;  // launch/run.proto
namespace cuda {
struct DeviceInfo;  // tensor/cuda/device.h
}

// Sets what a config is resolved against: surroundings.cuda and cuda_reason.
void find_gpus(Surroundings& surroundings);

struct RankGpu {
  int ordinal = 0;  // among those that this process sees
  DeviceTransport transport = DeviceTransport::Staged;
  DeviceSums sums = DeviceSums::Fast;
  double deadline_seconds = DeviceLink::kNoDeadline;  // of what NCCL waits for
};

// GPU and transport of a rank where a host has `devices` GPUs: its number on the host, counted round. `transport` is
// parallel.gpu_transport: auto is nccl for ranks that are processes, and staged for ranks that are threads. Throws
// UsageError when nccl would have two ranks on one GPU, unless hosts_apart: the user has told NCCL that these ranks are
// on different hosts (NCCL_HOSTID).
RankGpu choose_gpu(const std::string& transport, const LocalRank& local, int world_size, int devices,
                   bool hosts_apart = false);

// The same for a resolved config on this machine, with sums in rank order where it asks for no overlap, and a deadline
// of half of watchdog.timeout_seconds, which counts from a step's beginning: an error that names the group comes first.
// The default where it runs on the CPU.
RankGpu choose_gpu(const RunConfig& config, const Session& session);

// Throws UsageError naming the GPU when it has no matrix units for 8-bit floats.
void require_fp8_units(const cuda::DeviceInfo& gpu);
// The same for the context's device; a CPU has none.
void require_fp8_units(const Context& context);

}  // namespace tessera
