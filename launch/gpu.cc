#include "launch/gpu.h"

#include <fmt/format.h>

#include "launch/host.h"
#include "launch/run.pb.h"
#include "tensor/check.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/runtime.h"

namespace tessera {

void find_gpus(Surroundings& surroundings) {
  surroundings.cuda = Surroundings::Cuda::NotBuilt;
  surroundings.cuda_reason = "this build has no CUDA";
  if constexpr (kHasCuda) {
    const cuda::Devices devices = cuda::find_devices();
    surroundings.cuda = devices.count > 0 ? Surroundings::Cuda::Present : Surroundings::Cuda::NoGpu;
    surroundings.cuda_reason = devices.reason;
  }
}

RankGpu choose_gpu(const std::string& transport, const LocalRank& local, int world_size, int devices,
                   bool hosts_apart) {
  if (devices == 0) throw UsageError("no GPU for this rank: choose run.device = CPU");
  RankGpu gpu{.ordinal = local.rank % devices, .transport = DeviceTransport::Staged};
  if (world_size == 1 || transport == "staged" || (transport == "auto" && local.threads)) return gpu;
  gpu.transport = DeviceTransport::Nccl;
  if (local.ranks > devices && !hosts_apart) {
    throw UsageError(
        fmt::format("{} ranks on this host and {} GPU{}: ranks 0 and {} of it would share GPU 0, which NCCL cannot; "
                    "start {} rank{} "
                    "on each host, or set parallel.gpu_transport = staged (through host memory: slow)",
                    local.ranks, devices, devices == 1 ? "" : "s", devices, devices, devices == 1 ? "" : "s"));
  }
  return gpu;
}

void require_fp8_units(const cuda::DeviceInfo& gpu) {
  if (gpu.has_fp8_units()) return;
  throw UsageError(
      fmt::format("run.compute_dtype = FP8: needs a GPU with FP8 matrix units, of compute capability 8.9 or more, and "
                  "{} has {}.{}; choose F64, F32 or BF16",
                  gpu.name, gpu.major, gpu.minor));
}

void require_fp8_units(const Context& context) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return require_fp8_units(context.cuda().device());
  }
  throw UsageError("run.compute_dtype = FP8: needs a GPU with FP8 matrix units; choose F64, F32 or BF16");
}

RankGpu choose_gpu(const RunConfig& config, const Session& session) {
  if constexpr (kHasCuda) {
    if (config.run().device() == RunSection::CUDA) {
      RankGpu gpu = choose_gpu(config.parallel().gpu_transport(), session.local, session.world.size(),
                               cuda::find_devices().count, process_environment()("NCCL_HOSTID") != nullptr);
      if (!config.parallel().overlap()) gpu.sums = DeviceSums::RankOrder;
      const double watchdog = config.watchdog().timeout_seconds();
      if (watchdog > 0) gpu.deadline_seconds = watchdog / 2;
      return gpu;
    }
  }
  return {};
}

}  // namespace tessera
