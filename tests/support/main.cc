// The main of every test binary. Started by mpirun it runs the tests over MPI: rank 0 prints, other ranks print their
// failures only, and a failure on any rank fails all.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "parallel/comm/comm_mpi.h"
#include "tests/support/ranks.h"

namespace {

// Started as one of several processes: by Open MPI, or by MPICH and its kin.
bool started_by_mpirun() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* size = std::getenv(variable);
    if (size != nullptr && std::atoi(size) > 1) return true;
  }
  return false;
}

class FailuresOnly : public testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}
  // Kept here: asking for the current test while a result is reported would wait for a lock that is held.
  void OnTestStart(const testing::TestInfo& test) override {
    test_ = std::string(test.test_suite_name()) + "." + test.name();
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s: %s:%d: %s\n", rank_, test_.c_str(),
                 result.file_name() ? result.file_name() : "?", result.line_number(), result.message());
  }

 private:
  int rank_;
  std::string test_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!started_by_mpirun()) return RUN_ALL_TESTS();

  tessera::MpiSession session;
  tessera::testing::use_mpi(session);
  const std::unique_ptr<tessera::Comm> world = session.world();
  if (world->rank() != 0) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly(world->rank()));
  }
  const int result = RUN_ALL_TESTS();
  return static_cast<int>(world->max(result));
}
