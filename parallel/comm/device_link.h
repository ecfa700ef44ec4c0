// Lets the groups of a run move tensors on the device of its context.
#pragma once

#include <cstdint>
#include <exception>
#include <limits>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

enum class DeviceTransport : uint8_t {
  Staged,  // parallel/comm/comm_staged.h
  Nccl,    // parallel/comm/comm_nccl.h
};

enum class DeviceSums : uint8_t {
  Fast,       // the transport's own: the host's bits when staged, NCCL's order and arithmetic otherwise
  RankOrder,  // the host's bits (parallel/comm/comm_rank_order.h)
};

// While it lives, `world` and the groups split from it move such tensors; nothing to do on the CPU. It is to be made
// before the first group is split off, and to end after the last of them; context and world must outlive it. Throws
// UsageError when the transport cannot be used here. Collective over the world.
class DeviceLink {
 public:
  static constexpr double kNoDeadline = std::numeric_limits<double>::infinity();

  // deadline_seconds: how long a call of NCCL's may wait for other ranks before the host's next wait throws IoError.
  DeviceLink(Comm& world, const Context& context, DeviceTransport transport, DeviceSums sums = DeviceSums::Fast,
             double deadline_seconds = kNoDeadline);
  ~DeviceLink();
  DeviceLink(const DeviceLink&) = delete;
  DeviceLink& operator=(const DeviceLink&) = delete;

  // Ends what is under way on the device, without waiting for other ranks, and lets nothing more begin: for a rank that
  // fails and frees its memory.
  void abandon() noexcept { world_.abandon_device(); }

  // Memory of the device that it takes itself; what NCCL takes for its communicators is not known.
  int64_t device_bytes() const { return device_bytes_; }

 private:
  Comm& world_;
  int64_t device_bytes_ = 0;
};

// Abandons a link when an exception destroys it. Declared behind what has memory on the device, which it so precedes.
class AbandonOnFailure {
 public:
  explicit AbandonOnFailure(DeviceLink& link) : link_(link) {}
  ~AbandonOnFailure() {
    if (std::uncaught_exceptions() > 0) link_.abandon();
  }
  AbandonOnFailure(const AbandonOnFailure&) = delete;
  AbandonOnFailure& operator=(const AbandonOnFailure&) = delete;

 private:
  DeviceLink& link_;
};

}  // namespace tessera
