#include "launch/process/failure.h"

#include <fmt/format.h>
#include <mpi.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <new>
#include <thread>

#include "launch/process/host.h"
#include "launch/process/signals.h"

namespace tessera {
namespace {

enum class MpiState { Down, Up };

MpiState mpi_state() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0 ? MpiState::Up : MpiState::Down;
}

// MPI_Abort ends a job within 0.1 s, and on a busy machine within a second; a launcher that sees a process end by itself
// takes over a second.
std::chrono::duration<double> patience(int rank, MpiState state) {
  const double first = state == MpiState::Up ? 1.5 : 2.5;
  return std::chrono::duration<double>(rank == 0 ? 0 : first + 0.25 * std::log2(rank));
}

}  // namespace

Failure failure_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const DeviceMemoryError& e) {
    return {e.code(), std::string(e.what()) +
                          "; a smaller data.micro_batch_size, parallel.recompute = full, or more ranks (parallel.tp, "
                          "parallel.pp, or parallel.dp with parallel.zero_stage) take less of it on each"};
  } catch (const Error& e) {
    return {e.code(), e.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::Io, "out of memory"};
  } catch (const std::exception& e) {
    return {ExitCode::Internal, e.what()};
  } catch (...) {
    return {ExitCode::Internal, "an exception of unknown type"};
  }
}

std::string failure_line(const Failure& failure, int rank, int ranks, const std::string& host) {
  if (ranks <= 1) return fmt::format("tessera: error: {}\n", failure.message);
  return fmt::format("tessera: error: rank {} on {}: {}\n", rank, host, failure.message);
}

int end_in_failure(const Failure& failure) {
  end_at_once_by_signals();  // The launcher ends ranks that wait here by SIGTERM.
  const MpiState state = mpi_state();
  const LaunchedRank launched = launched_rank(process_environment());
  int rank = launched.rank;
  int ranks = launched.size;
  if (state == MpiState::Up) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  }
  std::fflush(stdout);
  std::this_thread::sleep_for(patience(rank, state));
  const std::string line = failure_line(failure, rank, ranks, host_name());
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  if (state == MpiState::Up) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(failure.code));
  return static_cast<int>(failure.code);
}

}  // namespace tessera
