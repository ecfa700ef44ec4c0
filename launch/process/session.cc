#include "launch/process/session.h"

#include <fmt/format.h>

#include "launch/process/host.h"
#include "parallel/comm/comm_mpi.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {

int run_session(const SessionOptions& options, const std::function<int(Session&)>& body) {
  const LaunchedRank launched = launched_rank(process_environment());
  if (options.local_ranks > 0 && launched.size > 1) {
    throw UsageError(
        fmt::format("--local-ranks {} makes ranks of one process, and mpirun started {} processes: use one",
                    options.local_ranks, launched.size));
  }
  const bool over_mpi = launched.launched && options.local_ranks == 0;
  const int ranks_here = over_mpi ? launched.local_ranks : std::max(1, options.local_ranks);
  const ThreadShare share = share_threads(options.threads, ranks_here, usable_cores());
  if (over_mpi) {
    MpiSession mpi;
    const std::unique_ptr<Comm> world = mpi.world();
    Session session{*world, share.threads, share.warning, {launched.local_rank, ranks_here, false}};
    return body(session);
  }
  int code = 0;
  run_ranks(ranks_here, [&](Comm& world) {
    Session session{world, share.threads, share.warning, {world.rank(), ranks_here, true}};
    const int result = body(session);
    if (world.rank() == 0) code = result;
  });
  return code;
}

}  // namespace tessera
