// libnccl.so.2 for tests: NCCL's entry points over ranks that are threads, on the emulated device's memory. Collectives
// and messages are work of their streams, which is over when all ranks' streams have come to it; a send is over when it
// was received. Communicators are made as NCCL makes them when it does not block: ready when all have come.
//
// It is stricter than NCCL: communicators must have a name and must not block. And its sums have an order of their own,
// as NCCL's have: from the last rank to the first, rounded at each step.
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/reduction.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/streams.h"

namespace {

struct Group;

// One rank's part of a group.
struct Member {
  std::shared_ptr<Group> group;
  int rank;
  int64_t calls = 0;   // collectives so far
  int64_t queued = 0;  // calls that are not done
  bool aborted = false;
  bool finalized = false;
  ncclComm_t* part = nullptr;  // of the split that is under way
};

// One collective: each rank's part of it comes when the rank's stream does.
struct Meeting {
  explicit Meeting(size_t ranks) : in(ranks), calls(ranks) {}

  std::vector<const void*> in;
  std::vector<std::string> calls;
  size_t arrived = 0, made = 0, left = 0;
};

struct Message {
  const void* data;
  size_t bytes;
  bool taken = false;
};

// Guarded by the device's mutex, as all here is.
struct Group {
  explicit Group(size_t ranks) : members(ranks), streams(ranks), colors(ranks), keys(ranks) {}

  std::vector<Member*> members;  // null: not there yet
  size_t joined = 0;
  size_t ended = 0;            // ranks that have called for the end
  bool broken = false;         // by a test
  bool held = false;           // by a test
  bool at_odds = false;        // ranks made different calls
  std::vector<void*> streams;  // of each rank's last call
  std::map<int64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> sent;  // from, to
  size_t splitting = 0;  // ranks that have called for the split under way
  std::vector<int> colors, keys;
  std::string part_name;

  // The other ranks' hosts may be waiting for something else.
  void advance_others(int rank) const {
    for (size_t r = 0; r < streams.size(); ++r) {
      if (static_cast<int>(r) != rank && streams[r] != nullptr) tessera::grid::advance(streams[r]);
    }
  }
};

std::recursive_mutex& mutex() { return tessera::grid::device_mutex(); }
std::map<std::string, std::weak_ptr<Group>> all_groups;  // by id
std::map<std::string, std::weak_ptr<Group>> by_name;
int ids = 0, splits = 0, aborted = 0, aborted_alone = 0;
thread_local int groups_open = 0;
thread_local int version_of_thread = 0;

std::vector<std::shared_ptr<Group>> groups_named(const std::string& name) {
  std::vector<std::shared_ptr<Group>> groups;
  for (auto& [of_group, group] : by_name) {
    if (of_group.substr(0, of_group.find('#')) != name) continue;
    if (const auto alive = group.lock()) groups.push_back(alive);
  }
  return groups;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Member> member;
};

namespace {

ncclComm_t join(const std::shared_ptr<Group>& group, int rank) {
  const auto member = std::make_shared<Member>(Member{.group = group, .rank = rank});
  group->members[rank] = member.get();
  ++group->joined;
  return new ncclComm{member};
}

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

// Queues step(), which is done when it returns true, and never in a group that has failed.
void enqueue(ncclComm_t comm, cudaStream_t stream, std::function<bool()> step) {
  const std::shared_ptr<Member> member = comm->member;
  member->group->streams[member->rank] = stream;
  ++member->queued;
  tessera::grid::defer(stream, [member, step = std::move(step)] {
    if (!member->aborted && (member->group->broken || member->group->held || !step())) return false;
    --member->queued;
    return true;
  });
}

// Meets, makes the result from all ranks' inputs, meets again before anybody writes, and writes.
template <class Make>
ncclResult_t collective(ncclComm_t comm, cudaStream_t stream, const void* in, void* out, size_t bytes,
                        const std::string& call, Make make) {
  const std::lock_guard lock(mutex());
  const std::shared_ptr<Group> group = comm->member->group;
  const int rank = comm->member->rank;
  const int64_t number = comm->member->calls++;
  enum { Coming, Making, Writing } state = Coming;
  enqueue(comm, stream, [=, result = std::vector<char>()]() mutable {
    const size_t ranks = group->members.size();
    Meeting& meeting = group->meetings.try_emplace(number, ranks).first->second;
    if (state == Coming) {
      meeting.in[rank] = in;
      meeting.calls[rank] = call;
      ++meeting.arrived;
      state = Making;
    }
    if (state == Making) {
      if (meeting.arrived < ranks) group->advance_others(rank);
      if (meeting.arrived < ranks) return false;
      for (const std::string& other : meeting.calls) group->at_odds |= other != call;
      if (group->at_odds) return false;
      const tessera::grid::DeviceAccess access;
      result.resize(bytes);
      make(meeting.in, result.data());
      ++meeting.made;
      state = Writing;
    }
    if (meeting.made < ranks) group->advance_others(rank);
    if (meeting.made < ranks) return false;
    const tessera::grid::DeviceAccess access;
    std::memcpy(out, result.data(), bytes);
    if (++meeting.left == ranks) group->meetings.erase(number);
    return true;
  });
  return ncclSuccess;
}

ncclResult_t reduce(ncclComm_t comm, cudaStream_t stream, const void* in, void* out, size_t first, size_t count,
                    ncclDataType_t type, ncclRedOp_t op, const std::string& call) {
  const size_t bytes = count * size_of_type(type);
  return collective(comm, stream, in, out, bytes, call + " " + std::to_string(count),
                    [=](const std::vector<const void*>& inputs, char* result) {
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

// For tests: from now on the communicators of this name have failed, or their calls come to no end.
void fake_nccl_break(const char* name);
void fake_nccl_break(const char* name) {
  const std::lock_guard lock(mutex());
  for (const auto& group : groups_named(name)) group->broken = true;
}
void fake_nccl_hold(const char* name);
void fake_nccl_hold(const char* name) {
  const std::lock_guard lock(mutex());
  for (const auto& group : groups_named(name)) group->held = true;
}

// For tests: ranks that have made communicators of this name so far, and of any name that were aborted.
int fake_nccl_made(const char* name);
int fake_nccl_made(const char* name) {
  const std::lock_guard lock(mutex());
  size_t ranks = 0;
  for (const auto& group : groups_named(name)) ranks += group->joined;
  return static_cast<int>(ranks);
}
int fake_nccl_aborted();
int fake_nccl_aborted() {
  const std::lock_guard lock(mutex());
  return aborted;
}

// For tests: calls of ncclGetUniqueId so far, and ranks that got a communicator by ncclCommSplit.
int fake_nccl_ids();
int fake_nccl_ids() {
  const std::lock_guard lock(mutex());
  return ids;
}
int fake_nccl_splits();
int fake_nccl_splits() {
  const std::lock_guard lock(mutex());
  return splits;
}

// For tests: the version of the calling thread's library; 0: the environment's FAKE_NCCL_VERSION, or that of the
// header.
void fake_nccl_version(int version);
void fake_nccl_version(int version) { version_of_thread = version; }

ncclResult_t ncclGetVersion(int* version) {
  const char* text = std::getenv("FAKE_NCCL_VERSION");
  *version = version_of_thread > 0 ? version_of_thread : text != nullptr ? std::atoi(text) : NCCL_VERSION_CODE;
  return ncclSuccess;
}

// For tests: aborts outside of a group, of which one may wait for what the next one would end.
int fake_nccl_aborted_alone();
int fake_nccl_aborted_alone() {
  const std::lock_guard lock(mutex());
  return aborted_alone;
}

ncclResult_t ncclGroupStart() {
  ++groups_open;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() { return groups_open-- > 0 ? ncclSuccess : ncclInvalidUsage; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(mutex());
  std::memset(id->internal, 0, sizeof(id->internal));
  const std::string text = std::to_string(getpid()) + " " + std::to_string(++ids);
  std::memcpy(id->internal, text.c_str(), text.size());
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  if (result == ncclInvalidUsage) return "invalid usage (run with NCCL_DEBUG=WARN for details)";
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "another error";
}

const char* ncclGetLastError(ncclComm_t) { return "a test's"; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0 || config->commName == nullptr) return ncclInvalidUsage;
  const std::lock_guard lock(mutex());
  const std::string key = id.internal;
  if (std::atoi(id.internal) != getpid()) return ncclInvalidUsage;  // of another process
  std::shared_ptr<Group> group = all_groups[key].lock();
  if (group == nullptr) all_groups[key] = group = std::make_shared<Group>(ranks);
  if (static_cast<int>(group->members.size()) != ranks || group->members.at(rank) != nullptr) return ncclInvalidUsage;
  by_name[std::string(config->commName) + "#" + key] = group;
  *comm = join(group, rank);
  return group->joined < group->members.size() ? ncclInProgress : ncclSuccess;
}

// Each rank brings its color and key; the last one makes the groups, and every rank's part is there then.
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  if (config->blocking != 0 || config->commName == nullptr || color < NCCL_SPLIT_NOCOLOR) return ncclInvalidUsage;
  const std::lock_guard lock(mutex());
  Member& self = *comm->member;
  Group& whole = *self.group;
  if (self.part != nullptr) return ncclInvalidUsage;
  *part = nullptr;
  self.part = part;
  whole.colors[self.rank] = color;
  whole.keys[self.rank] = key;
  if (color != NCCL_SPLIT_NOCOLOR) whole.part_name = config->commName;
  if (++whole.splitting < whole.members.size()) return ncclInProgress;
  whole.splitting = 0;
  std::map<int, std::vector<std::pair<int, int>>> members;  // by color: key, rank
  for (size_t r = 0; r < whole.members.size(); ++r) {
    if (whole.colors[r] != NCCL_SPLIT_NOCOLOR) members[whole.colors[r]].emplace_back(whole.keys[r], r);
  }
  for (auto& [of_color, ranks] : members) {
    std::sort(ranks.begin(), ranks.end());
    const auto group = std::make_shared<Group>(ranks.size());
    by_name[whole.part_name + "#split " + std::to_string(splits)] = group;
    for (size_t r = 0; r < ranks.size(); ++r, ++splits)
      *whole.members[ranks[r].second]->part = join(group, static_cast<int>(r));
  }
  for (Member* member : whole.members) member->part = nullptr;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(mutex());
  Member& self = *comm->member;
  const Group& group = *self.group;
  if (self.finalized && group.streams[self.rank] != nullptr) tessera::grid::advance(group.streams[self.rank]);
  const bool ending = self.finalized && (self.queued > 0 || group.ended < group.members.size());
  const bool under_way = group.joined < group.members.size() || self.part != nullptr || ending;
  *state = group.broken ? ncclRemoteError : group.at_odds ? ncclInvalidUsage : under_way ? ncclInProgress : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const std::lock_guard lock(mutex());
  comm->member->finalized = true;
  ++comm->member->group->ended;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const std::lock_guard lock(mutex());
  Group& group = *comm->member->group;
  group.streams[comm->member->rank] = nullptr;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const std::lock_guard lock(mutex());
  comm->member->aborted = true;
  if (!comm->member->finalized) ++comm->member->group->ended;
  ++aborted;
  if (groups_open == 0) ++aborted_alone;
  return ncclCommDestroy(comm);
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = count * size_of_type(type);
  return collective(comm, stream, in, out, bytes * comm->member->group->members.size(),
                    "all_gather " + std::to_string(bytes), [=](const std::vector<const void*>& inputs, char* result) {
                      for (const void* input : inputs) {
                        std::memcpy(result, input, bytes);
                        result += bytes;
                      }
                    });
}

ncclResult_t ncclAlltoAll(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
  const size_t bytes = count * size_of_type(type);
  const int rank = comm->member->rank;
  return collective(comm, stream, in, out, bytes * comm->member->group->members.size(),
                    "all_to_all " + std::to_string(bytes), [=](const std::vector<const void*>& inputs, char* result) {
                      for (const void* input : inputs) {
                        std::memcpy(result, static_cast<const char*>(input) + rank * bytes, bytes);
                        result += bytes;
                      }
                    });
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = count * size_of_type(type);
  return collective(
      comm, stream, in, out, bytes, "broadcast " + std::to_string(bytes) + " " + std::to_string(root),
      [=](const std::vector<const void*>& inputs, char* result) { std::memcpy(result, inputs[root], bytes); });
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return reduce(comm, stream, in, out, 0, count, type, op, "all_reduce");
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return reduce(comm, stream, in, out, comm->member->rank * count, count, type, op, "reduce_scatter");
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  const std::lock_guard lock(mutex());
  const auto message = std::make_shared<Message>(Message{data, count * size_of_type(type)});
  bool posted = false;
  enqueue(comm, stream, [=, group = comm->member->group, rank = comm->member->rank]() mutable {
    if (!posted) group->sent[{rank, peer}].push_back(message);
    posted = true;
    if (!message->taken) group->advance_others(rank);
    return message->taken;
  });
  return ncclSuccess;
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  const std::lock_guard lock(mutex());
  const size_t bytes = count * size_of_type(type);
  enqueue(comm, stream, [=, group = comm->member->group, rank = comm->member->rank] {
    auto& queue = group->sent[{peer, rank}];
    if (queue.empty()) group->advance_others(rank);
    if (queue.empty()) return false;
    const tessera::grid::DeviceAccess access;
    std::memcpy(data, queue.front()->data, std::min(bytes, queue.front()->bytes));
    queue.front()->taken = true;
    queue.pop_front();
    return true;
  });
  return ncclSuccess;
}

}  // extern "C"
