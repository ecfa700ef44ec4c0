// Tensor parallelism's communication beside backward's compute: what is issued when, that no bit changes, and what it
// costs.
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/comm_threads.h"
#include "tests/model/whole_model.h"
#include "tests/support/recording_comm.h"

namespace tessera::testing {
namespace {

class OverlapTest : public ::testing::TestWithParam<Family> {
 protected:
  PackedBatch batch_{kSlots, kDocuments, 53};
};

using Event = RecordingComm::Event;

// What a trace says about one started collective: the work done while it was under way.
struct Beside {
  std::string what;
  const void* in;
  int64_t work;
};
std::vector<Beside> under_way(const std::vector<Event>& events) {
  std::vector<Beside> all;
  for (size_t i = 0; i < events.size(); ++i) {
    if (!events[i].what.starts_with("start ")) continue;
    const std::string what = events[i].what.substr(6);
    for (size_t j = i + 1;; ++j) {
      if (j == events.size()) {
        ADD_FAILURE() << what << " is never waited for";
        break;
      }
      if (events[j].what == "wait " + what && events[j].in == events[i].in) {
        all.push_back({what, events[i].in, events[j].work - events[i].work});
        break;
      }
    }
  }
  return all;
}

std::vector<std::string> names(const std::vector<Event>& events) {
  std::vector<std::string> all;
  for (const Event& event : events) all.push_back(event.what);
  return all;
}

// FLOPs of the four products of a block on one rank, each way.
struct Products {
  explicit Products(const ModelShape& shape) {
    const int64_t unit = 2 * shape.slots * shape.hidden / shape.tp;
    up = unit * shape.ffn * (shape.layers[0].feed_forward == FeedForwardKind::SwiGlu ? 2 : 1);
    down = unit * shape.ffn;
    qkv = unit * (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    out = unit * shape.heads * shape.head_dim;
  }
  int64_t up, down, qkv, out;
};

TEST_P(OverlapTest, InARowEveryGatherOfAWeightsInputAndEverySumRunBesideProducts) {
  run_ranks(2, [&](Comm& world) {
    const ModelShape shape = small_shape(GetParam(), kSlots, DType::F64, 2, world.rank());
    std::function<int64_t()> flops = [] { return int64_t{0}; };
    RecordingComm tp(world, [&] { return flops(); });
    WholeModel rig(shape, tp);
    flops = [&] { return rig.context.matrix_flops(); };
    rig.model.forward(rig.context, batch_.view(), {}, rig.all(), kScale);
    tp.clear();
    rig.model.backward(rig.context, batch_.view(), {}, {1, 2});  // a block, with the head's norm before it
    EXPECT_EQ(names(tp.events()),
              (std::vector<std::string>{
                  "start all_gather", "wait all_gather",       // the gradient of the MLP's output
                  "start all_gather", "start reduce_scatter",  // its input again, beside three products; its gradient
                  "wait all_gather", "wait reduce_scatter",    // beside one
                  "start all_gather", "wait all_gather",       // and the same of attention
                  "start all_gather", "start reduce_scatter", "wait all_gather", "wait reduce_scatter"}));
    const Products flop(shape);
    const std::vector<Beside> beside = under_way(tp.events());
    ASSERT_EQ(beside.size(), 6u);
    const int64_t expected[] = {0, 2 * flop.down + flop.up, flop.up, 0, 2 * flop.out + flop.qkv, flop.qkv};
    for (int i = 0; i < 6; ++i) EXPECT_EQ(beside[i].work, expected[i]) << i;
  });
}

TEST_P(OverlapTest, BackwardWeightGathersWhileTheProductBeforeRuns) {
  run_ranks(2, [&](Comm& world) {
    const ModelShape shape = small_shape(GetParam(), kSlots, DType::F64, 2, world.rank());
    std::function<int64_t()> flops = [] { return int64_t{0}; };
    RecordingComm tp(world, [&] { return flops(); });
    WholeModel rig(shape, tp);
    flops = [&] { return rig.context.matrix_flops(); };
    rig.model.forward(rig.context, batch_.view(), {}, rig.all(), kScale);
    rig.model.backward_input(rig.context, batch_.view(), {}, rig.all());
    tp.clear();
    rig.model.backward_weight(rig.context, batch_.view(), {}, rig.all());
    const Products flop(shape);
    // Each block's: the gradient of the MLP's output, its input, and the same of attention; then the embedding's.
    const int64_t expected[] = {0, flop.down, flop.up, flop.out, flop.qkv, flop.down, flop.up, flop.out, flop.qkv};
    const std::vector<Beside> beside = under_way(tp.events());
    ASSERT_EQ(beside.size(), std::size(expected));
    for (size_t i = 0; i < beside.size(); ++i) {
      EXPECT_EQ(beside[i].what, "all_gather");
      EXPECT_EQ(beside[i].work, expected[i]) << i;
    }
  });
}

TEST_P(OverlapTest, WithoutItNothingIsUnderWayWhileProductsRun) {
  run_ranks(2, [&](Comm& world) {
    const ModelShape shape = small_shape(GetParam(), kSlots, DType::F64, 2, world.rank());
    std::function<int64_t()> flops = [] { return int64_t{0}; };
    RecordingComm tp(world, [&] { return flops(); });
    WholeModel rig(shape, tp, Recompute::None, Overlap::Off);
    flops = [&] { return rig.context.matrix_flops(); };
    rig.model.forward(rig.context, batch_.view(), {}, rig.all(), kScale);
    tp.clear();
    rig.model.backward(rig.context, batch_.view(), {}, rig.all());
    for (const Beside& started : under_way(tp.events())) EXPECT_EQ(started.work, 0) << started.what;
  });
}

TEST_P(OverlapTest, NoBitChanges) {
  for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const int tp : {1, 2, 4}) {
      for (const Recompute mode : {Recompute::None, Recompute::Selective, Recompute::Full}) {
        run_ranks(tp, [&](Comm& world) {
          const ModelShape shape = small_shape(GetParam(), kSlots, compute, tp, world.rank());
          const auto gradients = [&](Overlap overlap, Backward backward) {
            WholeModel rig(shape, world, mode, overlap);
            for (int microbatch = 0; microbatch < 2; ++microbatch) rig.step(batch_.view(), backward);
            std::vector<std::byte> bytes;
            for (const Parameter* p : rig.model.parameters()) {
              const auto* begin = static_cast<const std::byte*>(p->gradient.data());
              bytes.insert(bytes.end(), begin, begin + p->gradient.bytes());
            }
            return bytes;
          };
          const std::vector<std::byte> plain = gradients(Overlap::Off, Backward::Apart);
          EXPECT_TRUE(gradients(Overlap::Off, Backward::InARow) == plain) << name(compute) << " tp " << tp;
          EXPECT_TRUE(gradients(Overlap::On, Backward::Apart) == plain) << name(compute) << " tp " << tp;
          EXPECT_TRUE(gradients(Overlap::On, Backward::InARow) == plain) << name(compute) << " tp " << tp;
        });
      }
    }
  }
}

TEST_P(OverlapTest, StatementsEqualCounters) {
  for (const DType compute : {DType::F64, DType::BF16}) {
    for (const int tp : {1, 2, 4}) {
      run_ranks(tp, [&](Comm& world) {
        const ModelShape shape = small_shape(GetParam(), kSlots, compute, tp, world.rank());
        for (const Overlap overlap : {Overlap::Off, Overlap::On}) {
          WholeModel rig(shape, world, Recompute::None, overlap);
          const Cost cost = rig.model.cost();
          const int64_t flops = rig.context.matrix_flops();
          rig.model.forward(rig.context, batch_.view(), {}, rig.all(), kScale);
          const int64_t before = world.traffic().total_bytes();
          rig.model.backward(rig.context, batch_.view(), {}, rig.all());
          EXPECT_EQ(world.traffic().total_bytes() - before,
                    overlap == Overlap::On ? cost.backward_sent : cost.backward_input_sent + cost.backward_weight_sent);
          EXPECT_EQ(rig.context.matrix_flops() - flops, 3 * cost.matrix_flops);
        }
      });
    }
  }
}

// A block's statements of its workspace are what it takes, to the byte: the arena ends there. In 8 bits products take
// some, and sizes are multiples of 16.
TEST_P(OverlapTest, WorkspaceIsExactlyWhatIsStated) {
  for (const auto& [tp, format] :
       {std::pair{1, ProductFormat::Compute}, std::pair{2, ProductFormat::Compute},
        std::pair{4, ProductFormat::Compute}, std::pair{1, ProductFormat::Fp8}, std::pair{2, ProductFormat::Fp8}}) {
    run_ranks(tp, [&, tp = tp, format = format](Comm& world) {
      const bool fp8 = format == ProductFormat::Fp8;
      ModelShape shape = small_shape(GetParam(), kSlots, fp8 ? DType::BF16 : DType::F64, tp, world.rank());
      set_layers(shape, 3);
      shape.ffn = 64;
      set_inner_products(shape, format);
      Context context({.threads = 1});
      Block block(shape, 1, Recompute::None);
      Parameters parameters;
      block.add_parameters(parameters);
      ParameterMemory memory(context, parameters, shape.compute);
      Arena arena("test", Device::Cpu, 1 << 22);
      const Block::Saved saved = block.allocate(arena, Block::Portion::Kept);
      const Shape residual{shape.local_slots(), shape.hidden};
      const Tensor x0 = arena.take(residual, shape.compute), x2 = arena.take(residual, shape.compute);
      fill_normal(context, x0, RandomStream(11, "x"), 0, 1.0);
      MicrobatchPlan plan = plan_of(shape, arena);
      plan.make(context, batch_.view());
      block.prepare(context);
      const LayerRun run{context, world};

      const int64_t apart =
          std::max(block.forward_workspace(context.target()), block.backward_input_workspace(context.target()));
      context.resize_workspace(apart);
      block.forward(run, plan, x0, saved, x2);
      block.backward_input(run, plan, x0, saved, x2);
      EXPECT_EQ(context.workspace().high_water(), apart) << "tp " << tp << (fp8 ? ", FP8" : "");
      block.forward(run, plan, x0, saved, x2);
      context.resize_workspace(block.backward_workspace(context.target()));
      block.backward(run, plan, x0, saved, x2);
      EXPECT_EQ(context.workspace().high_water(), block.backward_workspace(context.target()))
          << "tp " << tp << (fp8 ? ", FP8" : "");
      const int64_t gathers = TokenGathers::workspace(tp, residual, shape.compute, Overlap::Off);
      context.resize_workspace(gathers + block.backward_weight_workspace(context.target()));
      const auto gathered = Block::gathers(saved, x2);
      TokenGathers all(context, world, gathered, Overlap::Off);
      block.backward_weight(run, saved, x2, all);
      EXPECT_EQ(context.workspace().high_water(), gathers + block.backward_weight_workspace(context.target()))
          << "tp " << tp << (fp8 ? ", FP8" : "");
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Families, OverlapTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
