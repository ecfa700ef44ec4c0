// libnccl.so.2 for tests: NCCL's entry points over ranks that are threads, on the emulated device's memory. Collectives
// and messages are work of their streams, which is over when all ranks' streams have come to it; a send is over when it
// was received. Communicators are made as NCCL makes them when it does not block: ready when all have come. And as
// there, the first call between ranks is under way, and not in the stream, until all of them have made it: they
// connect.
//
// It is stricter than NCCL: communicators must have a name and must not block, and each call waits for the one before
// to be in the stream. And its sums have an order of their own, as NCCL's have: from the last rank to the first,
// rounded at each step.
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
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/reduction.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/nccl_group.h"
#include "tests/support/grid/streams.h"

namespace {

using namespace tessera::grid::nccl;

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
  const auto member = std::make_shared<Member>(group, rank);
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

// Queues the calls of ranks that are connected. In a group that has failed they are never done.
void queue_connected(const Group& group) {
  for (Member* member : group.members) {
    if (member == nullptr || !member->call || !member->call->connected()) continue;
    Call call = std::move(*member->call);
    member->call.reset();
    member->group->streams[member->rank] = call.stream;
    ++member->queued;
    tessera::grid::defer(call.stream, [member = member->shared_from_this(), step = std::move(call.step)] {
      if (!member->aborted && (member->group->broken || member->group->held || !step())) return false;
      --member->queued;
      return true;
    });
  }
}

ncclResult_t make_call(ncclComm_t comm, Call call) {
  Member& member = *comm->member;
  if (member.call || !member.told || member.group->joined < member.group->members.size()) return ncclInvalidUsage;
  member.call = std::move(call);
  member.told = false;  // a thread of NCCL's puts it into the stream
  queue_connected(*member.group);
  return ncclInProgress;
}

// What a thread has called of messages since it opened a group: one call, done when all of them are.
struct Messages {
  ncclComm_t comm;
  cudaStream_t stream;
  std::vector<std::function<bool()>> steps;
  std::vector<std::pair<int, int>> pairs;
};
thread_local std::vector<Messages> grouped;

ncclResult_t make_call(Messages messages) {
  Group* group = messages.comm->member->group.get();
  const auto connected = [group, pairs = std::move(messages.pairs)] {
    return std::all_of(pairs.begin(), pairs.end(), [&](const auto& pair) {
      return group->senders.count(pair) > 0 && group->receivers.count(pair) > 0;
    });
  };
  const auto step = [group, rank = messages.comm->member->rank, steps = std::move(messages.steps)]() mutable {
    const auto all_done = [&] {
      std::erase_if(steps, [](const auto& one) { return one(); });
      return steps.empty();
    };
    if (all_done()) return true;
    group->advance_others(rank);
    return all_done();
  };
  return make_call(messages.comm, {.stream = messages.stream, .step = step, .connected = connected});
}

ncclResult_t message(ncclComm_t comm, cudaStream_t stream, std::pair<int, int> pair, std::function<bool()> step) {
  if (groups_open == 0) return make_call({comm, stream, {std::move(step)}, {pair}});
  auto same = std::find_if(grouped.begin(), grouped.end(), [&](const Messages& m) { return m.comm == comm; });
  if (same == grouped.end()) same = grouped.insert(same, {comm, stream, {}, {}});
  same->steps.push_back(std::move(step));
  same->pairs.push_back(pair);
  return ncclSuccess;
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
  const auto step = [=, result = std::vector<char>()]() mutable {
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
  };
  group->collective[rank] = true;
  return make_call(comm, {.stream = stream, .step = step, .connected = [called = &group->collective] {
                            return std::find(called->begin(), called->end(), false) == called->end();
                          }});
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
ncclResult_t ncclGroupEnd() {
  if (groups_open == 0) return ncclInvalidUsage;
  if (--groups_open > 0) return ncclSuccess;
  const std::lock_guard lock(mutex());
  ncclResult_t worst = ncclSuccess;
  for (Messages& messages : std::exchange(grouped, {})) {
    const ncclResult_t result = make_call(std::move(messages));
    if (worst == ncclSuccess || worst == ncclInProgress) worst = result == ncclSuccess ? worst : result;
  }
  return worst;
}

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
  const bool under_way =
      !self.told || group.joined < group.members.size() || self.part != nullptr || self.call.has_value() || ending;
  self.told = true;
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
  group.members[comm->member->rank] = nullptr;
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
  const auto sent = std::make_shared<Message>(Message{data, count * size_of_type(type)});
  const std::pair<int, int> pair(comm->member->rank, peer);
  comm->member->group->senders.insert(pair);
  bool posted = false;
  return message(comm, stream, pair, [=, group = comm->member->group]() mutable {
    if (!posted) group->sent[pair].push_back(sent);
    posted = true;
    return sent->taken;
  });
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  const std::lock_guard lock(mutex());
  const size_t bytes = count * size_of_type(type);
  const std::pair<int, int> pair(peer, comm->member->rank);
  comm->member->group->receivers.insert(pair);
  return message(comm, stream, pair, [=, group = comm->member->group] {
    auto& queue = group->sent[pair];
    if (queue.empty()) return false;
    const tessera::grid::DeviceAccess access;
    std::memcpy(data, queue.front()->data, std::min(bytes, queue.front()->bytes));
    queue.front()->taken = true;
    queue.pop_front();
    return true;
  });
}

}  // extern "C"
