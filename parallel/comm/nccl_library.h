// NCCL's functions, found by name when the library is opened. Internal to comm_nccl.
//
// Opened rather than linked: a process on a CPU neither loads nor needs it.
#pragma once

#include <nccl.h>

#include <string>
#include <vector>

namespace tessera::nccl {

struct Library {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclCommInitRankConfig) init_rank;
  decltype(&ncclCommSplit) split;
  decltype(&ncclCommFinalize) finalize;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclBroadcast) broadcast;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;

  // The library, opened once for the process. Throws UsageError when it is not found, or too old.
  static const Library& open();
  int version() const;  // 22809 is 2.28.9
};

std::string version_text(int version);

// Throws UsageError when this version of a library, opened from `path`, is older than Tessera needs.
void require_new_enough(int version, const std::string& path);
// Throws UsageError when the ranks have not all the same version; it says which rank has which.
void require_same(const std::vector<int>& versions);

}  // namespace tessera::nccl
