#include "tensor/context/graph.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/context/replay.h"
#include "tensor/context/runtime.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm/gemm.h"
#include "tests/support/operand.h"

namespace tessera {
namespace {

using testing::Operand;

TEST(Graph, QueuesAgainWhatWasRecorded) {
  const Context context(testing::on_device({}));
  const cuda::Stream& stream = context.cuda().stream();
  Operand x = Operand::filled({1000}, DType::F32, 2), y = Operand::filled({1000}, DType::F32, 1);
  Operand copied = Operand::filled({1000}, DType::F32, 0), cleared = Operand::filled({8}, DType::F32, 7);
  const cuda::Graph graph(stream, [&] {
    EXPECT_TRUE(stream.recording());
    scale(context, 3, x.tensor());
    accumulate(context, x.tensor(), y.tensor());
    stream.copy_on_device(copied.tensor().data(), y.tensor().data(), y.tensor().bytes());
    zero(context, cleared.tensor());
  });
  EXPECT_FALSE(stream.recording());
  context.synchronize();
  EXPECT_EQ(x[999], 2) << "recording runs nothing";
  EXPECT_EQ(cleared[0], 7);
  graph.launch(stream);
  graph.launch(stream);
  context.synchronize();
  EXPECT_EQ(x[999], 18);
  EXPECT_EQ(y[999], 1 + 6 + 18);
  EXPECT_EQ(copied[0], 25);
  EXPECT_EQ(cleared[0], 0);
  x.set(5, 100);  // the memory counts, not what it held then
  graph.launch(stream);
  context.synchronize();
  EXPECT_EQ(y[5], 25 + 300);
}

TEST(Graph, RefusesWhatTheHostHasPartIn) {
  const Context context(testing::on_device({}));
  const cuda::Stream& stream = context.cuda().stream();
  Operand x = Operand::filled({4}, DType::F32, 2);
  const std::vector<int32_t> values = {1, 2, 3};
  float back = 0;
  const auto recorded = [&](FunctionRef<void()> work) { cuda::Graph(stream, work).launch(stream); };
  EXPECT_THROW(recorded([&] { context.synchronize(); }), InternalError);
  EXPECT_THROW(recorded([&] { context.cuda().uploads().copy(std::span<const int32_t>(values)); }), InternalError);
  EXPECT_THROW(recorded([&] {
                 scale(context, 2, x.tensor());
                 stream.copy_to_host(&back, x.tensor().data(), 4);
               }),
               InternalError);
  EXPECT_THROW(recorded([&] {
                 cuda::Event event;
                 event.record(context.cuda().side_stream());
                 stream.wait(event);
               }),
               InternalError);
  EXPECT_FALSE(stream.recording());
  scale(context, 5, x.tensor());
  context.synchronize();
  EXPECT_EQ(x[0], 10) << "the stream goes on, and nothing of what was given up has run";
}

TEST(Replay, CallsWorkTwice) {
  Context context(testing::on_device({}));
  const Operand a = Operand::filled({8, 4}, DType::F32, 1), b = Operand::filled({4, 16}, DType::F32, 1);
  Operand c = Operand::filled({8, 16}, DType::F32, 0), other = c;
  gemm_prepare(context, a.tensor(), b.tensor(), c.tensor(), {.c = Write::Accumulate});
  Replay replay;
  int calls = 0;
  const auto add_to = [&](Operand& to, uint64_t key) {
    replay.run(context, {key}, [&] {
      ++calls;
      gemm(context, a.tensor(), b.tensor(), to.tensor(), {.c = Write::Accumulate});
    });
  };
  for (int i = 0; i < 5; ++i) add_to(c, 1);
  EXPECT_EQ(calls, 2);
  add_to(other, 2);
  EXPECT_EQ(calls, 3) << "another key is other work";
  context.synchronize();
  EXPECT_EQ(c[127], 5 * 4);
  EXPECT_EQ(other[127], 4);
  EXPECT_EQ(context.matrix_flops(), 6 * gemm_flops(8, 16, 4));
}

}  // namespace
}  // namespace tessera
