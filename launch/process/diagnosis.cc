#include "launch/process/diagnosis.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "launch/process/host.h"

namespace tessera {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string size(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

Finding cores(const MachineFacts& facts) {
  Finding finding{"cores", Verdict::Good, fmt::format("{} of {} usable", facts.usable_cores, facts.online_cores), ""};
  if (facts.usable_cores < facts.online_cores) {
    finding.verdict = Verdict::Note;
    finding.advice = "the affinity mask or a control group holds the others back; mpirun --bind-to none lifts a mask";
  }
  return finding;
}

Finding instruction_set(const MachineFacts& facts) {
  Finding finding{"instruction_set", Verdict::Good, fmt::format("{}", fmt::join(facts.processor_has, " ")), ""};
  std::vector<std::string> lacking;
  for (const std::string& set : facts.built_for) {
    if (!contains(facts.processor_has, set)) lacking.push_back(set);
  }
  if (!lacking.empty()) {
    finding.verdict = Verdict::Missing;
    finding.advice = fmt::format("this program was built to use {}; build it here, or with -DTESSERA_ARCH=x86-64-v3",
                                 fmt::join(lacking, " "));
  } else if (!contains(facts.built_for, "avx2")) {
    finding.verdict = Verdict::Note;
    finding.advice = "built without AVX2: slow; build on the machine that trains";
  }
  return finding;
}

Finding bf16(const MachineFacts& facts) {
  const bool native = facts.matrix_library_uses == "avx512_bf16" || facts.matrix_library_uses == "amx_bf16";
  if (native) return {"bf16", Verdict::Good, fmt::format("native ({})", facts.matrix_library_uses), ""};
  return {"bf16", Verdict::Note, fmt::format("emulated ({})", facts.matrix_library_uses),
          "on this processor run.compute_dtype: F32 is faster than BF16"};
}

Finding memory(const MachineFacts& facts) {
  Finding finding{"memory", Verdict::Good,
                  fmt::format("{} of {} available", size(facts.memory_available_bytes), size(facts.memory_bytes)), ""};
  if (facts.memory_available_bytes < 512 * kMiB) {
    finding.verdict = Verdict::Missing;
    finding.advice = "even the demo needs 512 MiB";
  }
  return finding;
}

Finding mpirun(const MachineFacts& facts) {
  if (!facts.mpirun.empty()) return {"mpirun", Verdict::Good, facts.mpirun, ""};
  return {"mpirun", Verdict::Note, "not in PATH", "only runs of one rank can be started; install openmpi-bin"};
}

Finding hdf5_threads(const MachineFacts& facts) {
  if (facts.hdf5_thread_safe) return {"hdf5_threads", Verdict::Good, "thread-safe", ""};
  return {"hdf5_threads", Verdict::Note, "not thread-safe", "use the serial build of HDF5 (libhdf5-dev)"};
}

Finding cuda(const MachineFacts& facts) {
  const std::string driver =
      facts.cuda_driver.empty()
          ? facts.cuda_missing_why
          : fmt::format("driver for CUDA {}: {}", facts.cuda_driver,
                        facts.gpus.empty() ? "no GPU" : fmt::format("{}", fmt::join(facts.gpus, ", ")));
  Finding finding{"cuda", Verdict::Good,
                  fmt::format("{}; {}", facts.built_with_cuda ? "built in" : "not built in", driver), ""};
  if (facts.built_with_cuda && facts.gpus.empty()) {
    finding.verdict = Verdict::Note;
    finding.advice = "training uses the CPU";
  } else if (!facts.built_with_cuda && !facts.gpus.empty()) {
    finding.verdict = Verdict::Note;
    finding.advice = "the GPU stays idle; build with the preset cuda-release";
  }
  return finding;
}

Finding disk(const MachineFacts& facts) {
  if (!facts.disk_error.empty()) {
    return {"disk", Verdict::Missing, fmt::format("{}: {}", facts.directory, facts.disk_error),
            "checkpoints need a directory that can be written: change to one, or set run.dir"};
  }
  Finding finding{
      "disk", Verdict::Good,
      fmt::format("{} free, writes {}/s", size(facts.disk_free_bytes), format_bytes(facts.disk_write_bytes_per_second)),
      ""};
  if (facts.disk_free_bytes < 256 * kMiB) {
    finding.verdict = Verdict::Missing;
    finding.advice = "two checkpoints of even the demo need 256 MiB";
  }
  return finding;
}

Finding shared_memory(const MachineFacts& facts) {
  if (!facts.shared_memory_bytes) {
    return {"shared_memory", Verdict::Note, "no /dev/shm", "ranks of one host exchange data through files: slow"};
  }
  Finding finding{"shared_memory", Verdict::Good, fmt::format("{} free in /dev/shm", size(*facts.shared_memory_bytes)),
                  ""};
  // Open MPI's shared-memory transport keeps about 5 MiB a rank there; containers often come with 64 MiB.
  if (*facts.shared_memory_bytes < 128 * kMiB) {
    finding.verdict = Verdict::Note;
    finding.advice = "enough for a few ranks only; start the container with --shm-size=1g";
  }
  return finding;
}

Finding huge_pages(const MachineFacts& facts) {
  Finding finding{"huge_pages", Verdict::Good, facts.transparent_huge_pages, ""};
  if (facts.transparent_huge_pages.empty() || facts.transparent_huge_pages == "never") {
    finding.value = "off";
    finding.verdict = Verdict::Note;
    finding.advice = "large matrices run a little faster with madvise in /sys/kernel/mm/transparent_hugepage/enabled";
  }
  return finding;
}

Finding yield_when_idle(const MachineFacts& facts) {
  if (facts.yield_when_idle) return {"yield_when_idle", Verdict::Good, "on", ""};
  return {"yield_when_idle", Verdict::Note, "off",
          "ranks that wait keep their cores busy; unset OMPI_MCA_mpi_yield_when_idle unless each rank has its own"};
}

}  // namespace

std::vector<Finding> judge(const MachineFacts& facts) {
  std::vector<Finding> findings = {cores(facts), instruction_set(facts), bf16(facts), memory(facts)};
  for (const auto& [name, version] : facts.versions) findings.push_back({name, Verdict::Good, version, ""});
  for (Finding finding : {hdf5_threads(facts), mpirun(facts), yield_when_idle(facts), shared_memory(facts), disk(facts),
                          huge_pages(facts), cuda(facts)}) {
    findings.push_back(std::move(finding));
  }
  return findings;
}

bool can_train(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.verdict == Verdict::Missing; });
}

}  // namespace tessera
