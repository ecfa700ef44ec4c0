// What a machine has for training, and what it lacks: facts first, judged by a pure function (so that tests can judge
// machines that they do not run on).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tessera {

struct MachineFacts {
  std::string host;
  int online_cores = 0;                    // of the machine
  int usable_cores = 0;                    // by this process: affinity and control group
  std::vector<std::string> processor_has;  // of the instruction sets that matter here, as in /proc/cpuinfo
  std::vector<std::string> built_for;      // those that this program was compiled to use
  std::string matrix_library_uses;         // instruction set that oneDNN has chosen
  int64_t memory_bytes = 0;                // of the machine, or of the control group when that is less
  int64_t memory_available_bytes = 0;
  std::vector<std::pair<std::string, std::string>> versions;  // version.h
  bool hdf5_thread_safe = false;
  std::string mpirun;  // its path; empty: not found
  bool built_with_cuda = false;
  std::string cuda_driver;       // version; empty: none
  std::string cuda_missing_why;  // when there is no driver
  std::vector<std::string> gpus;
  std::string directory;   // whose disk was looked at
  std::string disk_error;  // empty: it can be written
  int64_t disk_free_bytes = 0;
  double disk_write_bytes_per_second = 0;      // of 64 MiB, fsync included
  std::optional<int64_t> shared_memory_bytes;  // free in /dev/shm; nothing: there is no such file system
  std::string transparent_huge_pages;          // "always", "madvise", "never"; empty: the kernel has none
  bool yield_when_idle = true;                 // unless the user's OMPI_MCA_mpi_yield_when_idle says otherwise
};

// Looks at this machine; writes and removes a file in `directory`. Throws nothing: what cannot be read is empty.
MachineFacts examine_machine(const std::string& directory);

enum class Verdict : uint8_t {
  Good,
  Note,     // training works; read the advice
  Missing,  // training does not work
};

struct Finding {
  std::string name;  // one word: the table's first column and the JSON's key
  Verdict verdict = Verdict::Good;
  std::string value;
  std::string advice;  // empty when good
};

std::vector<Finding> judge(const MachineFacts& facts);

// False when any finding is Missing.
bool can_train(const std::vector<Finding>& findings);

}  // namespace tessera
