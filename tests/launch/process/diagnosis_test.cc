#include "launch/process/diagnosis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "launch/commands/command.h"
#include "tensor/context/threads.h"
#include "tests/launch/commands/command_run.h"

namespace tessera {
namespace {

MachineFacts good_machine() {
  MachineFacts facts;
  facts.online_cores = 8;
  facts.usable_cores = 8;
  facts.processor_has = {"avx2", "fma", "avx512f", "avx512_bf16"};
  facts.built_for = {"avx2", "fma", "avx512f", "avx512_bf16"};
  facts.matrix_library_uses = "avx512_bf16";
  facts.memory_bytes = int64_t{32} << 30;
  facts.memory_available_bytes = int64_t{30} << 30;
  facts.versions = {{"tessera", "1"}, {"mpi", "2"}};
  facts.hdf5_thread_safe = true;
  facts.mpirun = "/usr/bin/mpirun";
  facts.cuda_missing_why = "no driver";
  facts.directory = "/data";
  facts.disk_free_bytes = int64_t{100} << 30;
  facts.disk_write_bytes_per_second = 1e9;
  facts.shared_memory_bytes = int64_t{16} << 30;
  facts.transparent_huge_pages = "madvise";
  return facts;
}

Finding finding(const MachineFacts& facts, const std::string& name) {
  for (const Finding& candidate : judge(facts)) {
    if (candidate.name == name) return candidate;
  }
  ADD_FAILURE() << "no finding " << name;
  return {};
}

TEST(Diagnosis, AGoodMachineHasNothingToNote) {
  const std::vector<Finding> findings = judge(good_machine());
  EXPECT_TRUE(can_train(findings));
  for (const Finding& f : findings) {
    EXPECT_EQ(f.verdict, Verdict::Good) << f.name;
    EXPECT_EQ(f.advice, "") << f.name;
    EXPECT_NE(f.value, "") << f.name;
  }
}

TEST(Diagnosis, NamesAreUniqueWords) {
  std::vector<std::string> names;
  for (const Finding& f : judge(good_machine())) {
    names.push_back(f.name);
    EXPECT_EQ(f.name.find(' '), std::string::npos);
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

TEST(Diagnosis, AProgramBuiltForAnotherProcessorCannotTrain) {
  MachineFacts facts = good_machine();
  facts.processor_has = {"avx2", "fma"};
  facts.matrix_library_uses = "avx2";
  EXPECT_EQ(finding(facts, "instruction_set").verdict, Verdict::Missing);
  EXPECT_NE(finding(facts, "instruction_set").advice.find("avx512f avx512_bf16"), std::string::npos);
  EXPECT_EQ(finding(facts, "bf16").verdict, Verdict::Note);
  EXPECT_FALSE(can_train(judge(facts)));
}

TEST(Diagnosis, AProgramWithoutAvx2IsSlow) {
  MachineFacts facts = good_machine();
  facts.built_for.clear();
  EXPECT_EQ(finding(facts, "instruction_set").verdict, Verdict::Note);
}

TEST(Diagnosis, CoresThatMayNotBeUsedAreNoted) {
  MachineFacts facts = good_machine();
  facts.usable_cores = 1;
  EXPECT_EQ(finding(facts, "cores").verdict, Verdict::Note);
  EXPECT_EQ(finding(facts, "cores").value, "1 of 8 usable");
  EXPECT_TRUE(can_train(judge(facts)));
}

TEST(Diagnosis, MemoryAndDiskThatAreTooSmallPreventTraining) {
  MachineFacts facts = good_machine();
  facts.memory_available_bytes = 100 << 20;
  EXPECT_EQ(finding(facts, "memory").verdict, Verdict::Missing);
  facts = good_machine();
  facts.disk_free_bytes = 100 << 20;
  EXPECT_EQ(finding(facts, "disk").verdict, Verdict::Missing);
  facts = good_machine();
  facts.disk_error = "Read-only file system";
  EXPECT_EQ(finding(facts, "disk").verdict, Verdict::Missing);
  EXPECT_EQ(finding(facts, "disk").value, "/data: Read-only file system");
  EXPECT_FALSE(can_train(judge(facts)));
}

TEST(Diagnosis, WhatOnlySlowsOrLimitsIsANote) {
  MachineFacts facts = good_machine();
  facts.mpirun.clear();
  facts.hdf5_thread_safe = false;
  facts.shared_memory_bytes = 64 << 20;
  facts.transparent_huge_pages = "never";
  facts.yield_when_idle = false;
  for (const char* name : {"mpirun", "hdf5_threads", "yield_when_idle", "shared_memory", "huge_pages"}) {
    EXPECT_EQ(finding(facts, name).verdict, Verdict::Note) << name;
    EXPECT_NE(finding(facts, name).advice, "") << name;
  }
  facts.shared_memory_bytes.reset();
  EXPECT_EQ(finding(facts, "shared_memory").value, "no /dev/shm");
  EXPECT_TRUE(can_train(judge(facts)));
}

TEST(Diagnosis, CudaSaysWhatIsBuiltAndWhatIsThere) {
  MachineFacts facts = good_machine();
  EXPECT_EQ(finding(facts, "cuda").value, "not built in; no driver");
  facts.built_with_cuda = true;
  EXPECT_EQ(finding(facts, "cuda").verdict, Verdict::Note);
  facts.cuda_driver = "13.0";
  facts.gpus = {"NVIDIA H200", "NVIDIA H200"};
  EXPECT_EQ(finding(facts, "cuda").verdict, Verdict::Good);
  EXPECT_EQ(finding(facts, "cuda").value, "built in; driver for CUDA 13.0: NVIDIA H200, NVIDIA H200");
  facts.built_with_cuda = false;
  EXPECT_EQ(finding(facts, "cuda").verdict, Verdict::Note);
}

TEST(ExamineMachine, SeesThisOne) {
  const MachineFacts facts = examine_machine(::testing::TempDir());
  EXPECT_EQ(facts.usable_cores, usable_cores());
  EXPECT_GE(facts.online_cores, facts.usable_cores);
  EXPECT_EQ(facts.memory_bytes > 0 && facts.memory_available_bytes <= facts.memory_bytes, true);
  EXPECT_EQ(facts.disk_error, "");
  EXPECT_GT(facts.disk_free_bytes, 0);
  EXPECT_GT(facts.disk_write_bytes_per_second, 0);
  for (const auto& entry : std::filesystem::directory_iterator(::testing::TempDir())) {
    EXPECT_EQ(entry.path().filename().string().find(".tessera-doctor"), std::string::npos);
  }
  // The program runs, so the processor has what it was built for.
  for (const std::string& set : facts.built_for) {
    EXPECT_NE(std::find(facts.processor_has.begin(), facts.processor_has.end(), set), facts.processor_has.end()) << set;
  }
}

TEST(ExamineMachine, SaysWhyADirectoryCannotBeUsed) {
  EXPECT_EQ(examine_machine("/no/such/directory").disk_error, "No such file or directory");
  EXPECT_NE(examine_machine("/proc").disk_error, "");
}

TEST(Doctor, JsonIsTheLastLineAndHasEveryRowOfTheTable) {
  const testing::CommandRun run = testing::run_command(add_doctor, {"doctor", "--json"});
  std::istringstream output(run.out);
  std::vector<std::string> lines;
  for (std::string line; std::getline(output, line);) lines.push_back(line);
  ASSERT_FALSE(lines.empty());
  const auto object = nlohmann::json::parse(lines.back());
  EXPECT_EQ(object["training_is_possible"], run.code == 0);
  for (const Finding& f : judge(good_machine())) {
    if (f.name == "tessera" || f.name == "mpi") continue;
    EXPECT_TRUE(object.contains(f.name)) << f.name;
    EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.rfind(f.name, 0) == 0; }))
        << f.name;
  }
  EXPECT_TRUE(object.contains("hdf5"));
}

}  // namespace
}  // namespace tessera
