// The GPUs of a run: whether this build and this machine have any, and which one a rank takes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch/config/resolve.h"
#include "launch/process/host.h"
#include "launch/process/session.h"
#include "parallel/comm/device_link.h"
#include "tensor/context/context.h"

namespace tessera {

class RunConfig;  // launch/run.proto
namespace cuda {
struct DeviceInfo;  // tensor/cuda/device.h
}

// The name of the context's GPU; empty where it is the CPU.
std::string gpu_name(const Context& context);

// Where a rank runs: its GPU's name, or "the CPU", with the reason when the build could use a GPU.
std::string device_text(const Context& context);

// What CUDA is to read from the environment before its first call, for a job of so many ranks: names and values,
// without those that the user has set. A rank's messages wait on the device for other ranks' work, which must not wait
// for them in turn: by queues that streams share, or by a kernel that is loaded only when it is first needed, for which
// CUDA may wait for all that runs. A rank alone needs nothing, and starts faster without.
std::vector<std::pair<const char*, const char*>> gpu_environment(int ranks, const Environment& environment);

// Sets it, before MPI starts, which may start CUDA. local_ranks: of this process.
void set_gpu_environment(int local_ranks);

// Sets what a config is resolved against: surroundings.cuda and cuda_reason.
void find_gpus(Surroundings& surroundings);

struct RankGpu {
  int ordinal = 0;  // among those that this process sees
  DeviceTransport transport = DeviceTransport::Staged;
  DeviceSums sums = DeviceSums::Fast;
  double deadline_seconds = DeviceLink::kNoDeadline;  // of what NCCL waits for
};

// GPU and transport of a rank that sees `devices` GPUs: its number on the host, counted round, so that ranks of a host
// may see all of its GPUs or each its own. `transport` is parallel.gpu_transport: auto is nccl for several ranks that
// are processes, and else staged. Throws UsageError when there is none.
RankGpu choose_gpu(const std::string& transport, const LocalRank& local, int world_size, int devices);

// What the ranks tell each other of their GPUs.
struct ChosenGpu {
  std::string uuid;  // tensor/cuda/device.h; not known: taken for a GPU of its own
  int devices = 1;   // that the rank sees
  int ranks = 1;     // on its host
};
// Throws UsageError naming the first two ranks that have the same GPU, which NCCL cannot; in rank order.
void require_own_gpus(const std::vector<ChosenGpu>& gpus);

// The choice for a resolved config on this machine, with sums in rank order where it asks for no overlap, and a
// deadline of half of watchdog.timeout_seconds, which counts from a step's beginning: an error that names the group
// comes first. The default where it runs on the CPU. Throws UsageError too where some ranks have a GPU and others none,
// and where NCCL would have two ranks on one GPU, unless the user has told it that they are on different hosts
// (NCCL_HOSTID). Collective over the world.
RankGpu choose_gpu(const RunConfig& config, const Session& session);

// Throws UsageError naming the GPU when it has no matrix units for 8-bit floats.
void require_fp8_units(const cuda::DeviceInfo& gpu);
// The same for the context's device; a CPU has none.
void require_fp8_units(const Context& context);

}  // namespace tessera
