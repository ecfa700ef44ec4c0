#include "launch/run/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "launch/run.pb.h"
#include "tensor/check.h"
#include "tensor/context/runtime.h"
#include "tensor/cuda/device.h"
#include "tensor/has_cuda.h"

namespace tessera {

std::string gpu_name(const Context& context) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return context.cuda().device().name;
  }
  return "";
}

std::string device_text(const Context& context) {
  if (const std::string gpu = gpu_name(context); !gpu.empty()) return gpu;
  if constexpr (kHasCuda) {
    const cuda::Devices devices = cuda::find_devices();
    if (devices.count == 0) return fmt::format("the CPU ({})", devices.reason);
  }
  return "the CPU";
}

std::vector<std::pair<const char*, const char*>> gpu_environment(int ranks, const Environment& environment) {
  if (ranks <= 1) return {};
  std::vector<std::pair<const char*, const char*>> wanted = {
      {"CUDA_DEVICE_MAX_CONNECTIONS", "32"},  // the most; by default 8
      {"CUDA_MODULE_LOADING", "EAGER"},
  };
  std::erase_if(wanted, [&](const auto& variable) { return environment(variable.first) != nullptr; });
  return wanted;
}

void set_gpu_environment(int local_ranks) {
  if constexpr (kHasCuda) {
    const Environment environment = process_environment();
    const int ranks = std::max(launched_rank(environment).size, local_ranks);
    for (const auto& [name, value] : gpu_environment(ranks, environment)) ::setenv(name, value, 0);
  }
}

void find_gpus(Surroundings& surroundings) {
  surroundings.cuda = Surroundings::Cuda::NotBuilt;
  surroundings.cuda_reason = "this build has no CUDA";
  if constexpr (kHasCuda) {
    const cuda::Devices devices = cuda::find_devices();
    surroundings.cuda = devices.count > 0 ? Surroundings::Cuda::Present : Surroundings::Cuda::NoGpu;
    surroundings.cuda_reason = devices.reason;
  }
}

RankGpu choose_gpu(const std::string& transport, const LocalRank& local, int world_size, int devices) {
  if (devices == 0) throw UsageError("no GPU for this rank: choose run.device = CPU");
  const bool nccl = transport == "nccl" || (transport == "auto" && world_size > 1 && !local.threads);
  return {.ordinal = local.rank % devices, .transport = nccl ? DeviceTransport::Nccl : DeviceTransport::Staged};
}

void require_own_gpus(const std::vector<ChosenGpu>& gpus) {
  std::map<std::string, size_t> first;
  for (size_t rank = 0; rank < gpus.size(); ++rank) {
    const ChosenGpu& gpu = gpus[rank];
    if (gpu.uuid.empty()) continue;
    const auto [other, alone] = first.emplace(gpu.uuid, rank);
    if (alone) continue;
    throw UsageError(fmt::format(
        "ranks {} and {} would share {}, which NCCL cannot ({} ranks on their host; rank {} sees {} GPU{}): "
        "start no more ranks on a host than it has GPUs, let each rank see one of its own "
        "(CUDA_VISIBLE_DEVICES), or set parallel.gpu_transport = staged (through host memory: slow)",
        other->second, rank, gpu.uuid, gpu.ranks, rank, gpu.devices, gpu.devices == 1 ? "" : "s"));
  }
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

namespace {

// As a row of numbers, for the host's exchanges.
struct Told {
  std::array<char, 44> uuid;
  int32_t devices, ranks;
};
static_assert(sizeof(Told) % sizeof(uint32_t) == 0);

std::vector<ChosenGpu> tell_each_other(const ChosenGpu& own, Comm& world) {
  Told told{.uuid = {}, .devices = own.devices, .ranks = own.ranks};
  own.uuid.copy(told.uuid.data(), told.uuid.size() - 1);
  std::vector<Told> all(world.size());
  constexpr int64_t kNumbers = sizeof(Told) / sizeof(uint32_t);
  world.all_gather(ConstTensor(&told, {1, kNumbers}, DType::U32),
                   Tensor(all.data(), {world.size(), kNumbers}, DType::U32));
  std::vector<ChosenGpu> gpus;
  for (const Told& other : all)
    gpus.push_back({.uuid = other.uuid.data(), .devices = other.devices, .ranks = other.ranks});
  return gpus;
}

// run.device = AUTO is decided by each rank for itself.
void require_one_kind(bool on_gpu, Comm& world) {
  const int64_t on_gpus = world.sum(static_cast<int64_t>(on_gpu));
  if (on_gpus == 0 || on_gpus == world.size()) return;
  const auto lowest = -static_cast<int>(world.max(on_gpu ? -world.size() : -world.rank()));
  throw UsageError(fmt::format(
      "run.device = AUTO: rank {} finds no GPU that it can use, and {} of {} ranks do; tessera doctor on its "
      "host says why; start ranks only where GPUs are, or set run.device = CPU",
      lowest, on_gpus, world.size()));
}

}  // namespace

RankGpu choose_gpu(const RunConfig& config, const Session& session) {
  if constexpr (kHasCuda) {
    const bool on_gpu = config.run().device() == RunSection::CUDA;
    require_one_kind(on_gpu, session.world);
    if (on_gpu) {
      const int devices = cuda::find_devices().count;
      RankGpu gpu = choose_gpu(config.parallel().gpu_transport(), session.local, session.world.size(), devices);
      const bool hosts_apart = process_environment()("NCCL_HOSTID") != nullptr;
      if (gpu.transport == DeviceTransport::Nccl) {
        const ChosenGpu own{.uuid = hosts_apart ? "" : cuda::use_device(gpu.ordinal).uuid,
                            .devices = devices,
                            .ranks = session.local.ranks};
        require_own_gpus(tell_each_other(own, session.world));
      }
      if (config.parallel().sums() == ParallelConfig::RANK_ORDER) gpu.sums = DeviceSums::RankOrder;
      const double watchdog = config.watchdog().timeout_seconds();
      if (watchdog > 0) gpu.deadline_seconds = watchdog / 2;
      return gpu;
    }
  }
  return {};
}

}  // namespace tessera
