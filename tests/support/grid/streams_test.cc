// The emulated streams find what their users forget: that is shown of users who forget it.
#include "tests/support/grid/streams.h"

#include <gtest/gtest.h>

#include "tensor/check.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/memory.h"
#include "tensor/cuda/stream.h"

namespace tessera {
namespace {

class GridStreams : public ::testing::Test {
 protected:
  GridStreams() { cuda::enter_device(0); }
  ~GridStreams() override { grid::finish_own_streams(); }

  void write(const cuda::Stream& stream, int value) {
    grid::queue(stream.handle(), [this, value] { operand = value; });
  }
  void read(const cuda::Stream& stream) {
    grid::queue(stream.handle(), [this] { seen = operand; });
  }

  int operand = 0, seen = -1;
  cuda::Stream producer, consumer;
  cuda::Event event;
};

TEST_F(GridStreams, WaitForAnEventAndForNothingElse) {
  write(producer, 1);
  EXPECT_EQ(operand, 0) << "before anybody waits";
  event.record(producer);
  consumer.wait(event);
  write(producer, 2);  // behind the event
  read(consumer);
  consumer.synchronize();
  EXPECT_EQ(seen, 1);
  producer.synchronize();
  EXPECT_EQ(operand, 2);
}

TEST_F(GridStreams, ShowAMissingWaitAsAnOperandThatIsNotThere) {
  write(producer, 1);
  read(consumer);
  consumer.synchronize();
  EXPECT_EQ(seen, 0);
}

TEST_F(GridStreams, ShowAnOperandThatIsOverwrittenTooEarly) {
  write(producer, 1);
  event.record(producer);
  consumer.wait(event);
  read(consumer);
  write(producer, 2);  // without waiting for the consumer
  producer.synchronize();
  consumer.synchronize();
  EXPECT_EQ(seen, 2);
}

TEST_F(GridStreams, KnowAnEventAsItWasLastRecorded) {
  EXPECT_TRUE(event.done()) << "never recorded";
  bool open = false;
  grid::defer(producer.handle(), [&] { return open; });
  event.record(producer);
  EXPECT_FALSE(event.done());
  cuda::Event other;
  other.record(consumer);
  EXPECT_TRUE(other.done());
  open = true;
  EXPECT_TRUE(event.done());
}

TEST_F(GridStreams, CopyToPinnedMemoryWhenItsTurnComesAndToOtherMemoryAtOnce) {
  void* device = cuda::allocate_device(4, "of a test");
  int plain = 7;
  const int64_t before = grid::stream_calls().waits;
  producer.copy_to_device(device, &plain, 4);
  EXPECT_EQ(grid::stream_calls().waits - before, 1);
  {
    const cuda::PinnedBuffer pinned(4, "of a test");
    int& value = *static_cast<int*>(pinned.data());
    value = 0;
    producer.copy_to_host(&value, device, 4);
    EXPECT_EQ(value, 0);
    producer.synchronize();
    EXPECT_EQ(value, 7);
  }
  cuda::free_device(device);
}

TEST_F(GridStreams, TellTheFailureOfTheirWorkToWhoWaits) {
  grid::queue(producer.handle(), [] { throw InternalError("of a kernel"); });
  EXPECT_THROW(producer.synchronize(), InternalError);
  producer.synchronize();  // told once
}

TEST_F(GridStreams, FinishBeforeMemoryIsFreed) {
  void* device = cuda::allocate_device(4, "of a test");
  write(producer, 1);
  cuda::free_device(device);
  EXPECT_EQ(operand, 1);
}

}  // namespace
}  // namespace tessera
