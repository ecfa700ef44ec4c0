#if __has_include(<nccl.h>)

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <thread>
#include <utility>

#include "parallel/comm/nccl_communicator.h"
#include "tensor/check.h"

namespace tessera::nccl {
namespace {

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double ready_seconds(double deadline_seconds) {
  return std::isinf(deadline_seconds) ? 600 : std::max(deadline_seconds, 60.0);
}

double seconds_since(int64_t start) { return static_cast<double>(now() - start) * 1e-9; }

// A message waits on the device for its peer, often for most of a step, and each of NCCL's blocks keeps a
// multiprocessor from other work meanwhile: messages that wait must never have them all. NCCL takes up to 32 blocks for
// one between neighbours; 4 move it as fast as a network, and beside compute. NCCL_MAX_CTAS overrides it, and
// NCCL_MIN_P2P_NCHANNELS may exceed it.
constexpr int kFewBlocks = 4;

// name: for NCCL's own reports (RAS); must outlive the communicator.
ncclConfig_t config_of(const std::string& name, Communicator::Blocks blocks) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.commName = name.c_str();
  if (blocks == Communicator::Blocks::Few) config.maxCTAs = kFewBlocks;
  return config;
}

}  // namespace

Communicator::Communicator(const Library& library, std::string name, const ncclUniqueId& id, int rank, int ranks,
                           double deadline_seconds, Blocks blocks)
    : library_(library),
      name_(std::move(name)),
      rank_(rank),
      ranks_(ranks),
      deadline_seconds_(deadline_seconds),
      ready_seconds_(ready_seconds(deadline_seconds)),
      start_(now()) {
  ncclConfig_t config = config_of(name_, blocks);
  check(library_.init_rank(&comm_, ranks, id, rank, &config), doing_);
}

Communicator::Communicator(Communicator& whole, std::string name, int color, int rank, int ranks)
    : library_(whole.library_),
      name_(std::move(name)),
      rank_(rank),
      ranks_(ranks),
      deadline_seconds_(whole.deadline_seconds_),
      ready_seconds_(whole.ready_seconds_),
      start_(now()) {
  ncclConfig_t config = config_of(name_, Blocks::AsNcclChooses);
  comm_ = whole.split(color, rank, config);
}

void Communicator::stay_apart() {
  ncclConfig_t config = config_of(name_, Blocks::AsNcclChooses);
  split(NCCL_SPLIT_NOCOLOR, 0, config);
}

ncclComm_t Communicator::split(int color, int rank, ncclConfig_t& config) {
  await_ready();
  begin("splitting a communicator");
  check(library_.split(comm_, color, rank, &part_, &config), doing_);
  await_ready();  // it is written only then
  return std::exchange(part_, nullptr);
}

Communicator::~Communicator() {
  // An orderly end needs all its ranks, which do not come when one of them has failed.
  if (std::uncaught_exceptions() > 0) abort();
  begin_end();
  if (comm_ == nullptr) return;
  try {
    await_ready();
    library_.destroy(comm_);
  } catch (const std::exception&) {
    abort();
  }
}

void Communicator::begin_end() noexcept {
  if (comm_ == nullptr || ending_) return;
  ending_ = true;
  try {
    await_ready();
    begin("ending a communicator");
    check(library_.finalize(comm_), doing_);
  } catch (const std::exception&) {
    abort();  // its first failure was told by whoever waited
  }
}

void Communicator::abort() noexcept {
  if (comm_ != nullptr) library_.abort(std::exchange(comm_, nullptr));
}

bool Communicator::ready() {
  if (comm_ == nullptr) {
    throw IoError(
        fmt::format("NCCL's communicator {} of rank {} of {} was given up after a failure", name_, rank_, ranks_));
  }
  ncclResult_t state = ncclSuccess;
  check(library_.async_error(comm_, &state), "asking for errors");
  if (state == ncclSuccess) return true;
  check(state, doing_);
  if (seconds_since(start_) > ready_seconds_) {
    throw IoError(
        fmt::format("NCCL's communicator {} is not ready after {:.0f} s of {} on rank {} of {}: are all its ranks "
                    "running, and can they reach each other?",
                    name_, seconds_since(start_), doing_, rank_, ranks_));
  }
  return false;
}

bool Communicator::slow() const { return seconds_since(start_) > 1e-3; }

void Communicator::rest() const {
  if (slow())
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  else
    std::this_thread::yield();
}

void Communicator::await_ready() {
  while (!ready()) rest();
}

void Communicator::queued(cuda::Event& after) {
  after.record(stream_);
  calling_->ended.record(stream_);
  calling_ = nullptr;
}

void Communicator::look() {
  ready();
  retire();
  if (queued_.empty() || &queued_.front() == calling_ || !queued_.front().started.done()) return;
  const Queued& oldest = queued_.front();
  if (waiting_ != oldest.number) {
    waiting_ = oldest.number;
    waiting_since_ = now();
    return;
  }
  if (seconds_since(waiting_since_) > deadline_seconds_) {
    throw IoError(
        fmt::format("NCCL, {} in group {} on rank {} of {}: not done after {:.0f} s, so another rank of the group "
                    "has stopped, cannot be reached, or is that far behind (at most "
                    "half of watchdog.timeout_seconds)",
                    oldest.what, name_, rank_, ranks_, seconds_since(waiting_since_)));
  }
}

Communicator::Queued& Communicator::take(const char* what) {
  retire();
  if (spare_.empty()) spare_.emplace_back();
  queued_.splice(queued_.end(), spare_, spare_.begin());
  Queued& queued = queued_.back();
  queued.what = what;
  queued.number = calls_++;
  return queued;
}

void Communicator::retire() {
  while (!queued_.empty() && &queued_.front() != calling_ && queued_.front().ended.done())
    spare_.splice(spare_.end(), queued_, queued_.begin());
}

void Communicator::check(ncclResult_t result, const char* what) const {
  if (result == ncclSuccess || result == ncclInProgress) return;
  std::string reason = library_.last_error(comm_);
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  const std::string message = fmt::format("NCCL, {} in group {} on rank {} of {}: {} ({})", what, name_, rank_, ranks_,
                                          library_.error_string(result), reason);
  // CUDA's words, which NCCL passes on.
  if (result == ncclUnhandledCudaError && reason.find("out of memory") != std::string::npos)
    throw DeviceMemoryError(message);
  throw IoError(message);
}

void Communicator::begin(const char* what) {
  doing_ = what;
  start_ = now();
}

}  // namespace tessera::nccl

#endif
