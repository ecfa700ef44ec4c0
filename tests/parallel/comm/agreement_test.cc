#include "parallel/comm/agreement.h"

#include <gtest/gtest.h>

#include "parallel/comm/comm_threads.h"
#include "tests/support/message_of.h"

namespace tessera {
namespace {

using testing::message_of;

TEST(Agreement, TheLowestRanksErrorIsEveryRanks) {
  run_ranks(4, [](Comm& world) {
    EXPECT_FALSE(try_together(world, [] {}).has_value());
    const std::string message = message_of<DataError>([&] {
      together(world, [&] {
        if (world.rank() == 1) throw DataError("rank one's trouble");
        if (world.rank() == 3) throw IoError("rank three's trouble");
      });
    });
    EXPECT_EQ(message, "rank 1: rank one's trouble");
  });
}

// Rank 0 reports for all, and puts its own number in front.
TEST(Agreement, RankZeroDoesNotNameItselfInWhatAllThrow) {
  run_ranks(2, [](Comm& world) {
    const auto fail = [&] {
      if (world.rank() == 0) throw DataError("its trouble");
    };
    EXPECT_EQ(try_together(world, fail)->message, "rank 0: its trouble");  // as in a warning
    EXPECT_EQ(message_of<DataError>([&] { together(world, fail); }), "its trouble");
  });
}

TEST(Agreement, KeepsTheKindOfError) {
  run_ranks(2, [](Comm& world) {
    const auto fail = [&](auto error) {
      together(world, [&] {
        if (world.rank() == 1) throw error;
      });
    };
    EXPECT_THROW(fail(UsageError("x")), UsageError);
    EXPECT_THROW(fail(DataError("x")), DataError);
    EXPECT_THROW(fail(CheckpointError("x")), CheckpointError);
    EXPECT_THROW(fail(NumericalError("x")), NumericalError);
    EXPECT_THROW(fail(IoError("x")), IoError);
    EXPECT_THROW(fail(InternalError("x")), InternalError);
    EXPECT_THROW(fail(std::bad_alloc()), InternalError);
    EXPECT_THROW(fail(Error(ExitCode::Stopped, "x")), Error);
  });
}

TEST(Agreement, ASingleRankSpeaksForItself) {
  run_ranks(1, [](Comm& world) {
    EXPECT_EQ(message_of<IoError>([&] { together(world, [] { throw IoError("plain"); }); }), "plain");
  });
}

TEST(Agreement, TextsOfAnyLengthTravel) {
  run_ranks(3, [](Comm& world) {
    for (const size_t length : {0, 1, 3, 4, 5, 100003}) {
      const std::string text(length, static_cast<char>('a' + length % 7));
      EXPECT_EQ(broadcast_text(world, world.rank() == 2 ? text : "mine", 2), text);
      if (world.rank() == 1) send_text(world, text, 0);
      if (world.rank() == 0) {
        EXPECT_EQ(receive_text(world, 1), text);
      }
    }
  });
}

}  // namespace
}  // namespace tessera
