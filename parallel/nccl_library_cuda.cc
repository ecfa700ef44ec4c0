#if __has_include(<nccl.h>)

#include <dlfcn.h>
#include <fmt/format.h>

#include "parallel/nccl_library.h"
#include "tensor/check.h"

namespace tessera::nccl {
namespace {

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

}  // namespace tessera::nccl

#endif
