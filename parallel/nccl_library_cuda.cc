#if __has_include(<nccl.h>)

#include <dlfcn.h>
#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <thread>

#include "parallel/nccl_library.h"
#include "tensor/check.h"

namespace tessera::nccl {
namespace {

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// name: for NCCL's own reports (RAS); must outlive the call that the config is for.
ncclConfig_t config_of(const std::string& name) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.commName = name.c_str();
  return config;
}

Library open_library() {
  constexpr char kName[] = "libnccl.so.2";
  void* handle = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw UsageError(
        fmt::format("cannot open {}, which ranks on several GPUs need ({}): install NCCL {}.{} or later, or "
                    "put its folder on LD_LIBRARY_PATH, or set parallel.gpu_transport = staged",
                    kName, dlerror(), NCCL_MAJOR, NCCL_MINOR));
  }
  Library library{};  // it stays open
  const auto find = [&]<class F>(F& function, const char* symbol) {
    function = reinterpret_cast<F>(dlsym(handle, symbol));
    if (function == nullptr) {
      throw UsageError(
          fmt::format("{} has no {}: NCCL {}.{} or later is needed", kName, symbol, NCCL_MAJOR, NCCL_MINOR));
    }
  };
  find(library.get_version, "ncclGetVersion");
  find(library.get_unique_id, "ncclGetUniqueId");
  find(library.error_string, "ncclGetErrorString");
  find(library.last_error, "ncclGetLastError");
  find(library.init_rank, "ncclCommInitRankConfig");
  find(library.split, "ncclCommSplit");
  find(library.finalize, "ncclCommFinalize");
  find(library.destroy, "ncclCommDestroy");
  find(library.abort, "ncclCommAbort");
  find(library.async_error, "ncclCommGetAsyncError");
  find(library.all_gather, "ncclAllGather");
  find(library.reduce_scatter, "ncclReduceScatter");
  find(library.all_reduce, "ncclAllReduce");
  find(library.all_to_all, "ncclAlltoAll");
  find(library.broadcast, "ncclBroadcast");
  find(library.send, "ncclSend");
  find(library.receive, "ncclRecv");
  const int version = library.version();
  if (version / 100 < NCCL_VERSION_CODE / 100) {
    throw UsageError(fmt::format("{} is NCCL {}, and this build needs {}.{} or later", kName, version_text(version),
                                 NCCL_MAJOR, NCCL_MINOR));
  }
  return library;
}

}  // namespace

const Library& Library::open() {
  static const Library library = open_library();
  return library;
}

int Library::version() const {
  int version = 0;
  get_version(&version);
  return version;
}

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Communicator::Communicator(const Library& library, std::string name, const ncclUniqueId& id, int rank, int ranks)
    : library_(library), name_(std::move(name)), rank_(rank), ranks_(ranks), start_(now()) {
  ncclConfig_t config = config_of(name_);
  check(library_.init_rank(&comm_, ranks, id, rank, &config), "making a communicator");
}

Communicator::Communicator(Communicator& whole, std::string name, int color, int rank, int ranks)
    : library_(whole.library_), name_(std::move(name)), rank_(rank), ranks_(ranks), start_(now()) {
  ncclConfig_t config = config_of(name_);
  comm_ = whole.split(color, rank, config);
}

void Communicator::stay_apart() {
  ncclConfig_t config = config_of(name_);
  split(NCCL_SPLIT_NOCOLOR, 0, config);
}

ncclComm_t Communicator::split(int color, int rank, ncclConfig_t& config) {
  await_ready();
  begin();
  ncclComm_t part = nullptr;
  check(library_.split(comm_, color, rank, &part, &config), "splitting a communicator");
  await_ready();  // `part` is written only then
  return part;
}

Communicator::~Communicator() {
  if (comm_ == nullptr) return;
  // An orderly end needs all its ranks, which do not come when one of them has failed.
  if (std::uncaught_exceptions() > 0) {
    library_.abort(comm_);
    return;
  }
  try {
    begin();
    check(library_.finalize(comm_), "ending a communicator");
    await_ready();
    library_.destroy(comm_);
  } catch (const std::exception&) {
    library_.abort(comm_);  // its first failure was told by whoever waited
  }
}

bool Communicator::ready() {
  ncclResult_t state = ncclSuccess;
  check(library_.async_error(comm_, &state), "asking for errors");
  if (state == ncclSuccess) return true;
  check(state, "communicating");
  if (seconds() > kDeadlineSeconds) {
    throw IoError(
        fmt::format("NCCL's communicator {} is not ready after {:.0f} s on rank {} of {}: are all its ranks "
                    "running, and can they reach each other?",
                    name_, seconds(), rank_, ranks_));
  }
  return false;
}

void Communicator::await_ready() {
  while (!ready()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

void Communicator::check(ncclResult_t result, const char* what) const {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw IoError(fmt::format("NCCL, {} in group {} on rank {} of {}: {} ({})", what, name_, rank_, ranks_,
                            library_.error_string(result), library_.last_error(comm_)));
}

void Communicator::begin() { start_ = now(); }

double Communicator::seconds() const { return static_cast<double>(now() - start_) * 1e-9; }

}  // namespace tessera::nccl

#endif
