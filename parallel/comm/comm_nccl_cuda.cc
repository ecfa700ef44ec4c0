#include "parallel/comm/comm_nccl.h"
#include "tensor/check.h"

#if __has_include(<nccl.h>)

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "parallel/comm/host_message.h"
#include "parallel/comm/nccl_communicator.h"
#include "parallel/comm/nccl_library.h"
#include "tensor/context/runtime.h"

namespace tessera {
namespace {

using nccl::Communicator;
using nccl::Library;

class NcclExchange;

// What the exchanges of all groups of a rank share.
struct Job {
  Job(Comm& world_, const Context& context_, double deadline_seconds_)
      : library(Library::open()), world(world_), context(context_), deadline_seconds(deadline_seconds_) {
    context.cuda().set_watch([this] { watch(); });
  }
  ~Job() { context.cuda().set_watch({}); }
  void watch();
  void abandon() noexcept;
  void progress();
  bool all_queued() const;

  const Library& library;
  Comm& world;
  const Context& context;
  double deadline_seconds;
  std::chrono::steady_clock::time_point next_look;
  bool abandoned = false;
  int splits = 0;                        // groups split from the world so far, the same number on every rank
  std::vector<NcclExchange*> exchanges;  // in the order that they were made, on every rank
};

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return ncclFloat64;
    case DType::F32:
      return ncclFloat32;
    case DType::BF16:
      return ncclBfloat16;
    case DType::I32:
      return ncclInt32;
    case DType::U32:
      return ncclUint32;
    case DType::E4M3:
    case DType::E5M2:
    case DType::U16:
      break;
  }
  throw InternalError(std::string("no reduction over ranks for ") + name(dtype));
}

struct Channel;

// A collective that was started, or a message.
struct Pending final : Request::Pending {
  explicit Pending(NcclExchange& exchange_) : exchange(exchange_) {}
  void wait() override;
  void abandon() noexcept override;
  void release() noexcept override { busy = false; }

  NcclExchange& exchange;
  bool busy = false;
  bool called = false;         // of NCCL
  bool queued = false;         // in its stream
  Channel* channel = nullptr;  // of a message
  std::byte* data = nullptr;
  int64_t bytes = 0;
  cuda::Event posted, done;
};

// Messages of one tag from one rank to another, in order. The sender is rank 0 of the communicator; it sends the
// communicator's id through host memory.
struct Channel {
  bool sends = false;
  ncclUniqueId id{};
  HostMessage id_moves;
  std::string name;
  std::optional<Communicator> communicator;
  bool connected = false;        // a message has been in the stream
  std::deque<Pending*> waiting;  // not queued yet; the first may have been called
};

class NcclExchange final : public DeviceExchange {
 public:
  // Of a group that was split from the world by a color, number `split` of all such.
  struct Split {
    int split, color;
  };
  enum class Of : uint8_t { World, Group };
  NcclExchange(std::shared_ptr<Job> job, Comm& group, Of of, std::optional<Split> split)
      : job_(std::move(job)), group_(group), stream_(job_->context.cuda().stream()), of_(of), split_(split) {
    job_->exchanges.push_back(this);
  }
  ~NcclExchange() override {
    if (std::uncaught_exceptions() > 0) job_->abandon();
    for_communicators([](Communicator& communicator) { communicator.begin_end(); });
    std::erase(job_->exchanges, this);
  }

  std::unique_ptr<DeviceExchange> for_group(Comm& group, int color) override {
    std::optional<Split> split;
    if (of_ == Of::World) split = {.split = job_->splits++, .color = color};
    return std::make_unique<NcclExchange>(job_, group, Of::Group, split);
  }
  void expect() override { expected_ = true; }
  void connect() override;
  void abandon() noexcept override { job_->abandon(); }
  void settle() override {
    while (!job_->all_queued()) {
      job_->watch();
      std::this_thread::yield();
    }
  }
  void copy(const std::byte* from, std::byte* to, int64_t bytes) override { stream_.copy_on_device(to, from, bytes); }

  void do_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    finish(gather(in, out, block_bytes));
  }
  void do_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count, DType dtype) override {
    finish(scatter(in, out, count, dtype));
  }
  Request::Pending* do_start_all_gather(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    return &gather(in, out, block_bytes);
  }
  Request::Pending* do_start_reduce_scatter_sum(const std::byte* in, std::byte* out, int64_t count,
                                                DType dtype) override {
    return &scatter(in, out, count, dtype);
  }
  void do_all_to_all(const std::byte* in, std::byte* out, int64_t block_bytes) override {
    finish(queue("all_to_all", [&](ncclComm_t comm, cudaStream_t stream) {
      const Library& library = job_->library;
      const auto count = static_cast<size_t>(block_bytes);
      const auto failed = [](ncclResult_t result) { return result != ncclSuccess && result != ncclInProgress; };
      ncclResult_t result = library.group_start();
      for (int peer = 0; peer < group_.size() && !failed(result); ++peer) {
        result = library.send(in + peer * block_bytes, count, ncclUint8, peer, comm, stream);
        if (!failed(result)) result = library.receive(out + peer * block_bytes, count, ncclUint8, peer, comm, stream);
      }
      const ncclResult_t ended = library.group_end();
      return failed(result) ? result : ended;
    }));
  }
  void do_all_reduce(std::byte* x, int64_t count, DType dtype, Reduction reduction) override {
    finish(queue("all_reduce", [&](ncclComm_t comm, cudaStream_t stream) {
      return job_->library.all_reduce(x, x, static_cast<size_t>(count), type_of(dtype),
                                      reduction == Reduction::Sum ? ncclSum : ncclMax, comm, stream);
    }));
  }
  void do_broadcast(std::byte* x, int64_t bytes, int root) override {
    finish(queue("broadcast", [&](ncclComm_t comm, cudaStream_t stream) {
      return job_->library.broadcast(x, x, static_cast<size_t>(bytes), ncclUint8, root, comm, stream);
    }));
  }
  Request::Pending* do_send(const std::byte* x, int64_t bytes, int to, int tag) override {
    return post(const_cast<std::byte*>(x), bytes, to, tag, true);
  }
  Request::Pending* do_receive(std::byte* x, int64_t bytes, int from, int tag) override {
    return post(x, bytes, from, tag, false);
  }

  // Makes channels ready as far as their peers have come, and queues what waits for them.
  void progress() {
    for (auto& [key, channel] : channels_) progress(channel);
  }
  bool all_queued() const {
    return std::all_of(channels_.begin(), channels_.end(), [](const auto& c) { return c.second.waiting.empty(); });
  }
  void look() {
    for_communicators([](Communicator& communicator) { communicator.look(); });
  }
  void abort() noexcept {
    for_communicators([](Communicator& communicator) { communicator.abort(); });
  }
  // A message that is withdrawn.
  void forget(Pending& pending) {
    if (pending.called && !pending.queued) job_->abandon();  // NCCL may still come to it
    if (pending.channel != nullptr) std::erase(pending.channel->waiting, &pending);
    for (auto& [key, messages] : to_self_) std::erase(messages, &pending);
  }
  Job& job() { return *job_; }
  const cuda::Stream& stream() const { return stream_; }

 private:
  using Key = std::tuple<int, bool, int>;  // peer, whether this rank sends, tag

  template <class F>
  void for_communicators(F&& f) {
    if (communicator_) f(*communicator_);
    for (auto& [key, channel] : channels_) {
      if (channel.communicator) f(*channel.communicator);
    }
  }

  Pending& take() {
    for (Pending& pending : pending_) {
      if (!pending.busy) return pending;
    }
    return pending_.emplace_back(*this);
  }

  Communicator& communicator() {
    if (!communicator_) {
      ncclUniqueId id{};
      if (group_.rank() == 0) make_id(id);
      tell(id);
      communicator_.emplace(job_->library, group_.name(), id, group_.rank(), group_.size(), job_->deadline_seconds);
    }
    return *communicator_;
  }
  // Rank 0's becomes all ranks'. By messages rather than a broadcast, which would keep this host from serving others.
  void tell(ncclUniqueId& id) {
    auto* bytes = reinterpret_cast<std::byte*>(&id);
    CommBackend& host = group_.host_backend();
    std::vector<HostMessage> messages;
    if (group_.rank() > 0) messages.emplace_back(host.do_receive(bytes, sizeof(id), 0, CommBackend::kTags));
    for (int peer = 1; peer < group_.size() && group_.rank() == 0; ++peer)
      messages.emplace_back(host.do_send(bytes, sizeof(id), peer, CommBackend::kTags));
    while (!messages.empty()) {
      std::erase_if(messages, [](HostMessage& message) { return message.over(); });
      job_->watch();
      std::this_thread::yield();
    }
  }

  void make_id(ncclUniqueId& id) const {
    if (const ncclResult_t result = job_->library.get_unique_id(&id); result != ncclSuccess) {
      throw IoError(fmt::format("NCCL, preparing a communicator of group {}: {}", group_.name(),
                                job_->library.error_string(result)));
    }
  }

  template <class Call>
  Pending& queue(const char* what, Call&& call) {
    job_->progress();
    Pending& pending = take();
    pending.channel = nullptr;
    await_ready(communicator());
    pending.posted.record(stream_);
    communicator_->call(pending.posted, what, call);
    await_ready(*communicator_);
    communicator_->queued(pending.done);
    pending.busy = pending.queued = true;
    return pending;
  }
  // The other ranks may come only after messages that this one has not queued yet.
  void await_ready(Communicator& communicator) {
    while (!communicator.ready()) {
      if (communicator.slow())
        job_->watch();
      else if (!job_->all_queued())
        job_->progress();
      communicator.rest();
    }
  }
  Pending& gather(const std::byte* in, std::byte* out, int64_t block_bytes) {
    return queue("all_gather", [&](ncclComm_t comm, cudaStream_t stream) {
      return job_->library.all_gather(in, out, static_cast<size_t>(block_bytes), ncclUint8, comm, stream);
    });
  }
  Pending& scatter(const std::byte* in, std::byte* out, int64_t count, DType dtype) {
    return queue("reduce_scatter", [&](ncclComm_t comm, cudaStream_t stream) {
      return job_->library.reduce_scatter(in, out, static_cast<size_t>(count), type_of(dtype), ncclSum, comm, stream);
    });
  }
  static void finish(Pending& pending) {
    pending.wait();
    pending.release();
  }

  Request::Pending* post(std::byte* data, int64_t bytes, int peer, int tag, bool sends) {
    job_->progress();
    Pending& pending = take();
    pending.data = data;
    pending.bytes = bytes;
    pending.called = pending.queued = false;
    pending.busy = true;
    pending.posted.record(stream_);
    if (peer == group_.rank()) {
      pending.channel = nullptr;
      meet_self(pending, tag, sends);
    } else {
      Channel& channel = channels_[{peer, sends, tag}];
      if (channel.name.empty()) open(channel, peer, tag, sends);
      pending.channel = &channel;
      channel.waiting.push_back(&pending);
      progress(channel);
    }
    return &pending;
  }

  // A message to this rank itself: a copy, when both ends are there.
  void meet_self(Pending& pending, int tag, bool sends) {
    std::deque<Pending*>& peers = to_self_[{tag, !sends}];
    if (peers.empty()) {
      to_self_[{tag, sends}].push_back(&pending);
      return;
    }
    Pending& other = *peers.front();
    peers.pop_front();
    TESSERA_CHECK_EQ(pending.bytes, other.bytes, "bytes of a message to the rank itself");
    const Pending &from = sends ? pending : other, &to = sends ? other : pending;
    stream_.copy_on_device(to.data, from.data, to.bytes);
    for (Pending* both : {&pending, &other}) {
      both->done.record(stream_);
      both->queued = true;
    }
  }

  void open(Channel& channel, int peer, int tag, bool sends) {
    channel.sends = sends;
    channel.name =
        fmt::format("{}: {} to {}, {}", group_.name(), sends ? group_.rank() : peer, sends ? peer : group_.rank(), tag);
    auto* bytes = reinterpret_cast<std::byte*>(&channel.id);
    if (sends) {
      make_id(channel.id);
      channel.id_moves = HostMessage(group_.host_backend().do_send(bytes, sizeof(channel.id), peer, tag));
      connect(channel, 0);
    } else {
      channel.id_moves = HostMessage(group_.host_backend().do_receive(bytes, sizeof(channel.id), peer, tag));
    }
  }

  void connect(Channel& channel, int rank) {
    channel.communicator.emplace(job_->library, channel.name, channel.id, rank, 2, job_->deadline_seconds,
                                 Communicator::Blocks::Few);
  }

  // Never waits for the peer, which may be waiting for another channel of this rank.
  void progress(Channel& channel) {
    if (channel.waiting.empty()) return;
    const bool id_moved = channel.id_moves.over();
    if (!channel.communicator) {
      if (!id_moved) return;
      connect(channel, 1);
    }
    while (!channel.waiting.empty() && channel.communicator->ready()) {
      Pending& message = *channel.waiting.front();
      if (message.called) {
        channel.communicator->queued(message.done);
        message.queued = channel.connected = true;
        channel.waiting.pop_front();
        continue;
      }
      channel.communicator->call(
          message.posted, channel.sends ? "send" : "receive", [&](ncclComm_t comm, cudaStream_t stream) {
            const auto count = static_cast<size_t>(message.bytes);
            return channel.sends ? job_->library.send(message.data, count, ncclUint8, 1, comm, stream)
                                 : job_->library.receive(message.data, count, ncclUint8, 0, comm, stream);
          });
      message.called = true;
      while (channel.connected && !channel.communicator->ready()) channel.communicator->rest();
    }
  }

  std::shared_ptr<Job> job_;
  Comm& group_;
  const cuda::Stream& stream_;
  Of of_;
  std::optional<Split> split_;
  bool expected_ = false;
  std::deque<Pending> pending_;  // all that were ever under way at once
  std::optional<Communicator> communicator_;
  std::map<Key, Channel> channels_;
  std::map<std::pair<int, bool>, std::deque<Pending*>> to_self_;  // by tag, whether sent
};

void NcclExchange::connect() {
  TESSERA_CHECK(of_ == Of::World, "the world's exchange connects the groups that were split from it");
  // By number: what this rank has of each group that lacks a communicator, and whether any rank expects to need one.
  std::vector<NcclExchange*> lacking(job_->splits, nullptr);
  std::vector<int32_t> expected(job_->splits, 0);
  for (NcclExchange* exchange : job_->exchanges) {
    if (!exchange->split_ || exchange->communicator_ || exchange->group_.size() == 1) continue;
    lacking[exchange->split_->split] = exchange;
    expected[exchange->split_->split] = exchange->expected_ ? 1 : 0;
  }
  // A rank alone has nobody to talk to, but asked for NCCL: whether it works here is to be seen.
  if (group_.size() == 1) return await_ready(communicator());
  if (expected.empty()) return;
  group_.host_backend().do_all_reduce(reinterpret_cast<std::byte*>(expected.data()),
                                      static_cast<int64_t>(expected.size()), DType::I32, Reduction::Max);
  for (size_t split = 0; split < expected.size(); ++split) {
    if (expected[split] == 0) continue;
    NcclExchange* exchange = lacking[split];
    if (exchange == nullptr) {
      communicator().stay_apart();
      continue;
    }
    const Comm& group = exchange->group_;
    exchange->communicator_.emplace(communicator(), group.name(), exchange->split_->color, group.rank(), group.size());
  }
}

void Pending::wait() {
  // Only while channels are being made: a peer may wait for what this rank has not queued yet.
  while (!queued || !(exchange.job().all_queued() || done.done())) {
    exchange.job().watch();
    std::this_thread::yield();
  }
  exchange.stream().wait(done);
}

// A failed rank's memory may go at any moment: nothing may be queued that touches it.
void Pending::abandon() noexcept { exchange.forget(*this); }

void Job::progress() {
  if (abandoned) throw IoError("NCCL's communicators were given up after a failure");
  for (NcclExchange* exchange : exchanges) exchange->progress();
}

bool Job::all_queued() const {
  return std::all_of(exchanges.begin(), exchanges.end(), [](const NcclExchange* e) { return e->all_queued(); });
}

// Whatever is wrong, nothing that is queued must wait for it any more: memory is freed next, and CUDA waits then.
void Job::watch() {
  using Clock = std::chrono::steady_clock;
  try {
    progress();
    // Each look costs calls of NCCL and CUDA for every communicator, and whoever waits comes as fast as it can.
    const Clock::time_point now = Clock::now();
    if (now < next_look) return;
    next_look = now + std::chrono::milliseconds(1);
    world.check_peers();
    for (NcclExchange* exchange : exchanges) exchange->look();
  } catch (...) {
    abandon();
    throw;
  }
}

void Job::abandon() noexcept {
  abandoned = true;
  library.group_start();
  for (NcclExchange* exchange : exchanges) exchange->abort();
  library.group_end();
}

}  // namespace

std::unique_ptr<DeviceExchange> make_nccl_exchange(Comm& group, const Context& context, double deadline_seconds) {
  auto job = std::make_shared<Job>(group, context, deadline_seconds);
  const int version = job->library.version();
  std::vector<int> versions(group.size(), version);
  if (group.size() > 1) {
    group.host_backend().do_all_gather(reinterpret_cast<const std::byte*>(&version),
                                       reinterpret_cast<std::byte*>(versions.data()), sizeof(version));
  }
  nccl::require_same(versions);
  return std::make_unique<NcclExchange>(std::move(job), group, NcclExchange::Of::World, std::nullopt);
}

}  // namespace tessera

#else

namespace tessera {

std::unique_ptr<DeviceExchange> make_nccl_exchange(Comm&, const Context&, double) {
  throw UsageError(
      "this build has no NCCL (its header was not found): set parallel.gpu_transport = staged, or install NCCL's "
      "development files and build again");
}

}  // namespace tessera

#endif
