#include "launch/process/failure.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

namespace tessera {
namespace {

template <class T>
Failure failure_from(const T& error) {
  return failure_of(std::make_exception_ptr(error));
}

TEST(Failure, EveryErrorHasItsCode) {
  EXPECT_EQ(failure_from(UsageError("m")).code, ExitCode::Usage);
  EXPECT_EQ(failure_from(DataError("m")).code, ExitCode::Data);
  EXPECT_EQ(failure_from(CheckpointError("m")).code, ExitCode::NoCheckpoint);
  EXPECT_EQ(failure_from(NumericalError("m")).code, ExitCode::Numerical);
  EXPECT_EQ(failure_from(IoError("m")).code, ExitCode::Io);
  EXPECT_EQ(failure_from(InternalError("m")).code, ExitCode::Internal);
  EXPECT_EQ(failure_from(std::bad_alloc()).code, ExitCode::Io);
  EXPECT_EQ(failure_from(std::runtime_error("m")).code, ExitCode::Internal);
  EXPECT_EQ(failure_from(7).code, ExitCode::Internal);
}

TEST(Failure, KeepsTheMessage) {
  EXPECT_EQ(failure_from(DataError("corpus is empty")).message, "corpus is empty");
  EXPECT_EQ(failure_from(std::runtime_error("odd")).message, "odd");
  EXPECT_EQ(failure_from(std::bad_alloc()).message, "out of memory");
}

TEST(Failure, SaysWhatTakesLessOfAGpu) {
  const Failure failure = failure_from(DeviceMemoryError("GPU 0 is full"));
  EXPECT_EQ(failure.code, ExitCode::Io);
  EXPECT_EQ(failure.message,
            "GPU 0 is full; a smaller data.micro_batch_size, parallel.recompute = full, or more ranks (parallel.tp, "
            "parallel.pp, or parallel.dp with parallel.zero_stage) take less of it on each");
}

TEST(Failure, TheLineNamesRankAndHostWhenThereAreSeveral) {
  const Failure failure{ExitCode::Data, "corpus is empty"};
  EXPECT_EQ(failure_line(failure, 0, 1, "node7"), "tessera: error: corpus is empty\n");
  EXPECT_EQ(failure_line(failure, 3, 8, "node7"), "tessera: error: rank 3 on node7: corpus is empty\n");
}

}  // namespace
}  // namespace tessera
