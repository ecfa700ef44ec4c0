// Ranks as processes under MPI. Only calls of the MPI standard.
//
// Reductions are pairwise exchanges in chunks through a staging buffer that the group owns, added in rank order: MPI's
// own reductions promise neither an order nor an accumulation dtype.
#pragma once

#include <climits>
#include <cstdint>
#include <memory>

#include "parallel/comm/comm.h"

namespace tessera {

// MPI from construction to destruction; one a process, ever. MPI calls are made by one thread at a time.
class MpiSession {
 public:
  // Under Open MPI waiting ranks give up their core, unless OMPI_MCA_mpi_yield_when_idle=0 is set: where more ranks,
  // threads or other programs than cores share a host, waiting by spinning makes collectives a thousand times slower
  // (Open MPI sees that only when the host file tells it the cores). Throws IoError when MPI does not start.
  MpiSession();
  // Ends MPI, unless an exception is on its way: peers may then never come to the end, and abort() is due.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // The group of all ranks; collective. Must not outlive the session. largest_count: bytes that one MPI call may count,
  // at least 8; more go in several calls (tests lower it).
  std::unique_ptr<Comm> world(int64_t largest_count = INT_MAX);

  // Ends all ranks of the job with this exit code. Returns only when MPI is not running in this process.
  static void abort(int exit_code) noexcept;

 private:
  int exceptions_;
};

// Memory that a group of this size holds for its exchanges (Comm::staging_bytes): at most 4 MiB up to 129 ranks, then
// 32 KiB a rank. Pages that are never used are never touched.
int64_t mpi_staging_bytes(int ranks);

}  // namespace tessera
