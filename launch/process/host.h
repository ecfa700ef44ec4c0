// What this process is on its machine: its name, its cores and how many ranks share them, its memory.
//
// This is the one place that reads the launcher's environment variables.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace tessera {

// The host's name without its domain.
std::string host_name();

// The processor's name as the kernel tells it; "unknown processor" where it does not.
std::string processor_name();

// The value of an environment variable, or nullptr. A parameter, so that tests need not change the real environment.
using Environment = std::function<const char*(const char*)>;
Environment process_environment();

// What the launcher (Open MPI, MPICH, Intel MPI, Slurm) told this process, before MPI is initialised.
struct LaunchedRank {
  bool launched = false;  // false: started by hand, a job of one rank
  int rank = 0;
  int size = 1;
  int local_ranks = 1;  // ranks of the job on this host
  int local_rank = 0;   // among them
};
LaunchedRank launched_rank(const Environment& environment);

// Threads of a rank: `requested`, or an equal share of the cores when requested is 0 (at least one). `warning` is
// empty unless ranks times threads exceeds the cores, which happens only when the user asked for it or started more
// ranks than there are cores. Throws UsageError when requested is negative.
struct ThreadShare {
  int threads = 1;
  std::string warning;
};
ThreadShare share_threads(int requested, int local_ranks, int cores);

// This process's resident memory by kind, in bytes, as the kernel counts it.
struct ProcessMemory {
  int64_t resident = 0;       // anonymous + file + shared
  int64_t anonymous = 0;      // heap, stacks, arenas
  int64_t file = 0;           // pages of mapped files: code, token shards
  int64_t shared = 0;         // shared memory: MPI's segments
  int64_t peak_resident = 0;  // the most that `resident` ever was
};
// Throws IoError when /proc does not say.
ProcessMemory process_memory();

// "1.50 GiB", "312 MiB", "17 B".
std::string format_bytes(double bytes);

// "2d 03h", "1h 05m", "3m 20s", "12s".
std::string format_duration(double seconds);

// The same for what may be over in a moment: below ten seconds "3.4 s", below one "340 ms".
std::string format_short_duration(double seconds);

}  // namespace tessera
