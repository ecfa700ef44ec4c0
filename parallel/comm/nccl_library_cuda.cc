#if __has_include(<nccl.h>)

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <map>

#include "parallel/comm/nccl_library.h"
#include "tensor/check.h"

namespace tessera::nccl {
namespace {

// Older ones have no names for communicators. NCCL takes the settings of a newer header's communicators, as far as it
// knows them.
constexpr int kOldest = 22700;

std::string remedy() {
  return fmt::format(
      "install NCCL {}.{} or later, or put its folder on LD_LIBRARY_PATH, or set parallel.gpu_transport "
      "= staged (through host memory: slow)",
      kOldest / 10000, kOldest / 100 % 100);
}

std::string path_of(void* handle, const char* name) {
  const link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0] != 0 ? map->l_name : name;
}

Library open_library() {
  constexpr char kName[] = "libnccl.so.2";
  void* handle = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw UsageError(
        fmt::format("cannot open {}, which ranks on several GPUs need ({}): {}", kName, dlerror(), remedy()));
  }
  const std::string path = path_of(handle, kName);
  Library library{};  // it stays open
  const auto find = [&]<class F>(F& function, const char* symbol) {
    function = reinterpret_cast<F>(dlsym(handle, symbol));
    if (function == nullptr) {
      throw UsageError(fmt::format("{} has no {}: {}", path, symbol, remedy()));
    }
  };
  find(library.get_version, "ncclGetVersion");
  require_new_enough(library.version(), path);  // an old one lacks some of the rest
  find(library.get_unique_id, "ncclGetUniqueId");
  find(library.error_string, "ncclGetErrorString");
  find(library.last_error, "ncclGetLastError");
  find(library.init_rank, "ncclCommInitRankConfig");
  find(library.split, "ncclCommSplit");
  find(library.finalize, "ncclCommFinalize");
  find(library.destroy, "ncclCommDestroy");
  find(library.abort, "ncclCommAbort");
  find(library.group_start, "ncclGroupStart");
  find(library.group_end, "ncclGroupEnd");
  find(library.async_error, "ncclCommGetAsyncError");
  find(library.all_gather, "ncclAllGather");
  find(library.reduce_scatter, "ncclReduceScatter");
  find(library.all_reduce, "ncclAllReduce");
  find(library.broadcast, "ncclBroadcast");
  find(library.send, "ncclSend");
  find(library.receive, "ncclRecv");
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

void require_new_enough(int version, const std::string& path) {
  if (version >= kOldest) return;
  throw UsageError(fmt::format("{} is NCCL {}, which is too old: {}", path, version_text(version), remedy()));
}

void require_same(const std::vector<int>& versions) {
  std::map<int, int> ranks;
  for (const int version : versions) ++ranks[version];
  // What most have is right, or where as many have each, the newer.
  int usual = 0, most = 0;
  for (const auto& [version, have] : ranks) {
    if (have < most) continue;
    usual = version;
    most = have;
  }
  const auto odd = std::find_if(versions.begin(), versions.end(), [&](int version) { return version != usual; });
  if (odd == versions.end()) return;
  throw UsageError(fmt::format(
      "NCCL is {} on rank {} and {} on rank {} ({} of {} ranks have {}): install the same one on every host, or let "
      "LD_LIBRARY_PATH name the same one for every rank, or set parallel.gpu_transport = staged (through host memory: "
      "slow)",
      version_text(*odd), odd - versions.begin(), version_text(usual),
      std::find(versions.begin(), versions.end(), usual) - versions.begin(), most, versions.size(),
      version_text(usual)));
}

}  // namespace tessera::nccl

#endif
