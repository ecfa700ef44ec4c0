// libnccl.so.2 for tests: NCCL's entry points over ranks that are threads, on the emulated device's memory. A
// collective waits on the host until all ranks have come and is then done; a send is done at once, and a receive when
// the stream is waited for. Communicators are made as NCCL makes them when it does not block: ready when all have come.
//
// It is stricter than NCCL: communicators must have a name and must not block. And its sums have an order of their own,
// as NCCL's have: from the last rank to the first, rounded at each step.
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/reduction.h"
#include "tests/support/grid/memory.h"

namespace {

struct Group {
  explicit Group(int ranks) : present(ranks), in(ranks), calls(ranks) {}

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> present;
  int joined = 0;
  bool broken = false;   // by a test
  bool at_odds = false;  // ranks made different calls
  int arrived = 0;
  int64_t meetings = 0;
  std::vector<const void*> in;
  std::vector<std::string> calls;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> sent;  // from, to

  // Returns when all ranks have come; not ncclSuccess when they do not, or make another call.
  ncclResult_t meet(int rank, const void* own, const std::string& call) {
    std::unique_lock lock(mutex);
    in[rank] = own;
    calls[rank] = call;
    const int64_t meeting = meetings;
    if (++arrived == static_cast<int>(in.size())) {
      // Judged now: a rank that leaves early may come to the next meeting before others have left this one.
      for (const std::string& other : calls) at_odds |= other != call;
      arrived = 0;
      ++meetings;
      changed.notify_all();
    }
    if (!changed.wait_for(lock, std::chrono::seconds(60), [&] { return meetings != meeting || broken; }) || broken)
      return ncclRemoteError;
    return at_odds ? ncclInvalidUsage : ncclSuccess;
  }
};

std::mutex all_mutex;
std::map<std::string, std::weak_ptr<Group>> all_groups;  // by id
std::map<std::string, std::weak_ptr<Group>> by_name;
int ids = 0, splits = 0;

}  // namespace

struct ncclComm {
  std::shared_ptr<Group> group;
  int rank;
};

namespace {

size_t size_of_type(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
    case ncclInt8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclFloat64:
      return 8;
    default:
      return 4;
  }
}

tessera::DType type_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat64:
      return tessera::DType::F64;
    case ncclBfloat16:
      return tessera::DType::BF16;
    case ncclInt32:
      return tessera::DType::I32;
    case ncclUint32:
      return tessera::DType::U32;
    default:
      return tessera::DType::F32;
  }
}

// Meets, makes the result from all ranks' inputs, meets again before anybody writes, and writes.
template <class Make>
ncclResult_t collective(ncclComm_t comm, const void* in, void* out, size_t bytes, const std::string& call,
                        Make&& make) {
  Group& group = *comm->group;
  if (const ncclResult_t result = group.meet(comm->rank, in, call); result != ncclSuccess) return result;
  const tessera::grid::DeviceAccess access;
  std::vector<char> result(bytes);
  make(group.in, result.data());
  if (const ncclResult_t met = group.meet(comm->rank, in, call + " made"); met != ncclSuccess) return met;
  std::memcpy(out, result.data(), bytes);
  return ncclSuccess;
}

ncclResult_t reduce(ncclComm_t comm, const void* in, void* out, size_t first, size_t count, ncclDataType_t type,
                    ncclRedOp_t op, const std::string& call) {
  const size_t bytes = count * size_of_type(type);
  return collective(comm, in, out, bytes, call + " " + std::to_string(count),
                    [&](const std::vector<const void*>& inputs, char* result) {
                      const auto part = [&](const void* input) {
                        return static_cast<const std::byte*>(input) + first * size_of_type(type);
                      };
                      auto* sum = reinterpret_cast<std::byte*>(result);
                      std::memcpy(sum, part(inputs.back()), bytes);
                      for (size_t r = inputs.size() - 1; r-- > 0;) {
                        tessera::reduce_in_rank_order(
                            std::vector<const std::byte*>{sum, part(inputs[r])}, sum, static_cast<int64_t>(count),
                            type_of(type), op == ncclSum ? tessera::Reduction::Sum : tessera::Reduction::Max);
                      }
                    });
}

}  // namespace

extern "C" {

// For tests: from now on the communicators of this name have failed.
void fake_nccl_break(const char* name);
void fake_nccl_break(const char* name) {
  const std::lock_guard lock(all_mutex);
  for (auto& [of_group, group] : by_name) {
    if (of_group.substr(0, of_group.find('#')) != name) continue;
    if (const auto alive = group.lock()) {
      const std::lock_guard inner(alive->mutex);
      alive->broken = true;
      alive->changed.notify_all();
    }
  }
}

// For tests: ranks that have made communicators of this name so far.
int fake_nccl_made(const char* name);
int fake_nccl_made(const char* name) {
  const std::lock_guard lock(all_mutex);
  int ranks = 0;
  for (auto& [of_group, group] : by_name) {
    if (of_group.substr(0, of_group.find('#')) != name) continue;
    if (const auto alive = group.lock()) ranks += alive->joined;
  }
  return ranks;
}

// For tests: calls of ncclGetUniqueId so far, and ranks that got a communicator by ncclCommSplit.
int fake_nccl_ids();
int fake_nccl_ids() {
  const std::lock_guard lock(all_mutex);
  return ids;
}
int fake_nccl_splits();
int fake_nccl_splits() {
  const std::lock_guard lock(all_mutex);
  return splits;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(all_mutex);
  std::memset(id->internal, 0, sizeof(id->internal));
  const std::string text = std::to_string(++ids);
  std::memcpy(id->internal, text.c_str(), text.size());
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "another error";
}

const char* ncclGetLastError(ncclComm_t) { return "a test's"; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0 || config->commName == nullptr) return ncclInvalidUsage;
  const std::lock_guard lock(all_mutex);
  const std::string key = id.internal;
  std::shared_ptr<Group> group = all_groups[key].lock();
  if (group == nullptr) all_groups[key] = group = std::make_shared<Group>(ranks);
  const std::lock_guard inner(group->mutex);
  if (static_cast<int>(group->present.size()) != ranks || group->present.at(rank)) return ncclInvalidUsage;
  by_name[std::string(config->commName) + "#" + key] = group;
  group->present[rank] = true;
  ++group->joined;
  *comm = new ncclComm{group, rank};
  return group->joined < ranks ? ncclInProgress : ncclSuccess;
}

// Each rank brings its color and key; who has the first rank of a color makes the group.
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  if (config->blocking != 0 || config->commName == nullptr || color < NCCL_SPLIT_NOCOLOR) return ncclInvalidUsage;
  struct Own {
    int color, key;
    std::shared_ptr<Group> group;
  } own{color, key, nullptr};
  Group& whole = *comm->group;
  if (const ncclResult_t result = whole.meet(comm->rank, &own, "split"); result != ncclSuccess) return result;
  std::vector<std::pair<int, int>> members;  // key, rank
  for (size_t r = 0; r < whole.in.size(); ++r) {
    const Own& other = *static_cast<const Own*>(whole.in[r]);
    if (other.color == color) members.emplace_back(other.key, static_cast<int>(r));
  }
  std::sort(members.begin(), members.end());
  const auto first = static_cast<const Own*>(whole.in[members.front().second]);
  if (first == &own) own.group = std::make_shared<Group>(static_cast<int>(members.size()));
  if (const ncclResult_t result = whole.meet(comm->rank, &own, "split: made"); result != ncclSuccess) return result;
  *part = nullptr;
  if (color != NCCL_SPLIT_NOCOLOR) {
    const std::shared_ptr<Group> group = first->group;
    const int rank =
        static_cast<int>(std::find(members.begin(), members.end(), std::pair(key, comm->rank)) - members.begin());
    const std::lock_guard lock(all_mutex);
    const std::lock_guard inner(group->mutex);
    group->present[rank] = true;
    ++group->joined;
    *part = new ncclComm{group, rank};
    if (first == &own) by_name[std::string(config->commName) + "#split " + std::to_string(splits)] = group;
    ++splits;
  }
  return whole.meet(comm->rank, &own, "split: joined");
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(comm->group->mutex);
  const bool ready = comm->group->joined == static_cast<int>(comm->group->present.size());
  *state = comm->group->broken ? ncclRemoteError : ready ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t) {
  const size_t bytes = count * size_of_type(type);
  return collective(comm, in, out, bytes * comm->group->in.size(), "all_gather " + std::to_string(bytes),
                    [&](const std::vector<const void*>& inputs, char* result) {
                      for (const void* input : inputs) {
                        std::memcpy(result, input, bytes);
                        result += bytes;
                      }
                    });
}

ncclResult_t ncclAlltoAll(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t) {
  const size_t bytes = count * size_of_type(type);
  return collective(comm, in, out, bytes * comm->group->in.size(), "all_to_all " + std::to_string(bytes),
                    [&](const std::vector<const void*>& inputs, char* result) {
                      for (const void* input : inputs) {
                        std::memcpy(result, static_cast<const char*>(input) + comm->rank * bytes, bytes);
                        result += bytes;
                      }
                    });
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t) {
  const size_t bytes = count * size_of_type(type);
  return collective(
      comm, in, out, bytes, "broadcast " + std::to_string(bytes) + " " + std::to_string(root),
      [&](const std::vector<const void*>& inputs, char* result) { std::memcpy(result, inputs[root], bytes); });
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t) {
  return reduce(comm, in, out, 0, count, type, op, "all_reduce");
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t) {
  return reduce(comm, in, out, comm->rank * count, count, type, op, "reduce_scatter");
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
  const tessera::grid::DeviceAccess access;
  const std::lock_guard lock(comm->group->mutex);
  const char* bytes = static_cast<const char*>(data);
  comm->group->sent[{comm->rank, peer}].emplace_back(bytes, bytes + count * size_of_type(type));
  return ncclSuccess;
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * size_of_type(type);
  tessera::grid::defer(stream, [group = comm->group, from = std::pair(peer, comm->rank), data, bytes] {
    const std::lock_guard lock(group->mutex);
    auto& queue = group->sent[from];
    if (queue.empty()) return false;
    const tessera::grid::DeviceAccess access;
    std::memcpy(data, queue.front().data(), std::min(bytes, queue.front().size()));
    queue.pop_front();
    return true;
  });
  return ncclSuccess;
}

}  // extern "C"
