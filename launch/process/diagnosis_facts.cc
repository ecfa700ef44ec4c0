// examine_machine(): what there is, without judgement.
#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <oneapi/dnnl/dnnl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string_view>

#include "launch/process/diagnosis.h"
#include "launch/process/host.h"
#include "launch/process/version.h"
#include "tensor/context/threads.h"
#include "tensor/device.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

constexpr std::array<std::string_view, 6> kInstructionSets = {"avx2",        "fma",         "avx512f",
                                                              "avx512_vnni", "avx512_bf16", "amx_bf16"};

std::vector<std::string> processor_has() {
  std::ifstream info("/proc/cpuinfo");
  std::vector<std::string> found;
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream flags(line.substr(line.find(':') + 1));
    for (std::string flag; flags >> flag;) {
      if (std::find(kInstructionSets.begin(), kInstructionSets.end(), flag) != kInstructionSets.end()) {
        found.push_back(flag);
      }
    }
    break;
  }
  return found;
}

std::vector<std::string> built_for() {
  std::vector<std::string> sets;
#ifdef __AVX2__
  sets.emplace_back("avx2");
#endif
#ifdef __FMA__
  sets.emplace_back("fma");
#endif
#ifdef __AVX512F__
  sets.emplace_back("avx512f");
#endif
#ifdef __AVX512VNNI__
  sets.emplace_back("avx512_vnni");
#endif
#ifdef __AVX512BF16__
  sets.emplace_back("avx512_bf16");
#endif
#ifdef __AMX_BF16__
  sets.emplace_back("amx_bf16");
#endif
  return sets;
}

std::string matrix_library_uses() {
  switch (static_cast<int>(dnnl_get_effective_cpu_isa())) {
    case dnnl_cpu_isa_sse41:
      return "sse4.1";
    case dnnl_cpu_isa_avx:
      return "avx";
    case dnnl_cpu_isa_avx2:
    case dnnl_cpu_isa_avx2_vnni:
      return "avx2";
    case dnnl_cpu_isa_avx512_core:
    case dnnl_cpu_isa_avx512_core_vnni:
      return "avx512";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "avx512_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "amx_bf16";
    default:
      return "another instruction set";
  }
}

// "MemTotal:  24600000 kB" of /proc/meminfo, bounded by the control group's limit.
void read_memory(MachineFacts& facts) {
  std::ifstream info("/proc/meminfo");
  std::string key;
  std::string unit;
  int64_t kilobytes = 0;
  while (info >> key >> kilobytes) {
    std::getline(info, unit);
    if (key == "MemTotal:") facts.memory_bytes = kilobytes * 1024;
    if (key == "MemAvailable:") facts.memory_available_bytes = kilobytes * 1024;
  }
  int64_t limit = 0;
  int64_t used = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && limit < facts.memory_bytes) {
    facts.memory_bytes = limit;
    std::ifstream("/sys/fs/cgroup/memory.current") >> used;
    facts.memory_available_bytes = std::min(facts.memory_available_bytes, std::max<int64_t>(0, limit - used));
  }
}

std::string find_in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + program;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

// Asks the driver library itself, so that a machine without the CUDA toolkit can tell too.
void read_cuda(MachineFacts& facts) {
  facts.built_with_cuda = kHasCuda;
  void* driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) {
    facts.cuda_missing_why = "no NVIDIA driver is installed (libcuda.so.1 is not found)";
    return;
  }
  const auto call = [&](const char* name, auto* type) {
    return reinterpret_cast<decltype(type)>(::dlsym(driver, name));
  };
  using Init = int(unsigned);
  using Number = int(int*);
  using Name = int(char*, int, int);
  const auto init = call("cuInit", static_cast<Init*>(nullptr));
  const auto version = call("cuDriverGetVersion", static_cast<Number*>(nullptr));
  const auto count = call("cuDeviceGetCount", static_cast<Number*>(nullptr));
  const auto name = call("cuDeviceGetName", static_cast<Name*>(nullptr));
  int number = 0;
  if (init == nullptr || version == nullptr || count == nullptr || name == nullptr) {
    facts.cuda_missing_why = "libcuda.so.1 is not a driver's library";
  } else if (const int error = init(0); error != 0) {
    facts.cuda_missing_why = fmt::format("the driver finds no device (cuInit returns {})", error);
  } else if (version(&number) == 0) {
    facts.cuda_driver = fmt::format("{}.{}", number / 1000, number % 1000 / 10);
    int devices = 0;
    if (count(&devices) != 0) devices = 0;
    for (int device = 0; device < devices; ++device) {
      std::array<char, 128> text{};
      if (name(text.data(), static_cast<int>(text.size()) - 1, device) == 0) facts.gpus.emplace_back(text.data());
    }
  }
  ::dlclose(driver);
}

void read_disk(MachineFacts& facts, const std::string& directory) {
  facts.directory = directory;
  struct statvfs disk {};
  if (::statvfs(directory.c_str(), &disk) != 0) {
    facts.disk_error = std::strerror(errno);
    return;
  }
  facts.disk_free_bytes = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  std::string path = directory + "/.tessera-doctor-XXXXXX";
  const int file = ::mkstemp(path.data());
  if (file < 0) {
    facts.disk_error = std::strerror(errno);
    return;
  }
  ::unlink(path.c_str());  // gone when closed, however this ends
  constexpr int kBlocks = 16;
  const std::vector<char> block(4 << 20, 'x');
  const auto start = std::chrono::steady_clock::now();
  int64_t written = 0;
  for (int i = 0; i < kBlocks && facts.disk_error.empty(); ++i) {
    const ssize_t size = ::write(file, block.data(), block.size());
    if (size < 0) facts.disk_error = std::strerror(errno);
    written += std::max<ssize_t>(size, 0);
  }
  if (::fsync(file) != 0 && facts.disk_error.empty()) facts.disk_error = std::strerror(errno);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ::close(file);
  facts.disk_write_bytes_per_second = static_cast<double>(written) / std::max(seconds.count(), 1e-9);
}

// "always [madvise] never": the word in brackets.
std::string chosen_word(const std::string& path) {
  std::string text;
  std::getline(std::ifstream(path), text);
  const size_t open = text.find('[');
  const size_t close = text.find(']', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return "";
  return text.substr(open + 1, close - open - 1);
}

}  // namespace

MachineFacts examine_machine(const std::string& directory) {
  MachineFacts facts;
  facts.host = host_name();
  facts.online_cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  facts.usable_cores = usable_cores();
  facts.processor_has = processor_has();
  facts.built_for = built_for();
  facts.matrix_library_uses = matrix_library_uses();
  read_memory(facts);
  facts.versions = versions();
  hbool_t thread_safe = 0;
  facts.hdf5_thread_safe = H5is_library_threadsafe(&thread_safe) >= 0 && thread_safe > 0;
  facts.mpirun = find_in_path("mpirun");
  read_cuda(facts);
  read_disk(facts, directory);
  struct statvfs shared {};
  if (::statvfs("/dev/shm", &shared) == 0) {
    facts.shared_memory_bytes = static_cast<int64_t>(shared.f_bavail) * static_cast<int64_t>(shared.f_frsize);
  }
  facts.transparent_huge_pages = chosen_word("/sys/kernel/mm/transparent_hugepage/enabled");
  const char* yield = std::getenv("OMPI_MCA_mpi_yield_when_idle");
  facts.yield_when_idle = yield == nullptr || std::string_view(yield) != "0";
  return facts;
}

}  // namespace tessera
