// Tensors on GPUs, moved by NCCL: a GPU for each rank.
//
// Communicators are made when they are needed: before step one, those of the groups that were said to need one, by
// splitting the world's (Comm::connect_device), since that is where all ranks come by; any other group's at its first
// call, which all its ranks make. Each pair of ranks that exchange messages has one for each direction and tag, made
// beside what else runs when the first message is posted. All have their group's name, which NCCL's reports show. Every
// communicator has a stream of high priority of its own: a call waits there for what the context's stream has by then,
// and the context's stream waits for the call (a started one: when it is waited for). The host waits for neither; while
// it waits for the GPU it asks every communicator for errors (cuda::Runtime::wait), and whether a call has waited for
// other ranks longer than the deadline; what makes communicators has the same one. Once it has found anything wrong, a
// failed rank among those that are threads too, all communicators of the rank are aborted before the error is thrown:
// what they have queued may never end, and freeing memory waits for it.
//
// Sums are made in NCCL's order and arithmetic: BF16 is added in BF16's own precision at each hop, and its maximum may
// drop a NaN. They differ by rounding from those of comm_staged, and from layout to layout. That is the fast path;
// comm_rank_order before it makes the exact one.
#pragma once

#include <memory>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

// An exchange of tensors on the device of `context`, which must outlive it, as the group must. Opens the library by its name (libnccl.so.2).
// Throws UsageError when it is missing, older than what this build was made for, or not the same on every rank.
// Collective over the group.
std::unique_ptr<DeviceExchange> make_nccl_exchange(Comm& group, const Context& context, double deadline_seconds);

}  // namespace tessera
