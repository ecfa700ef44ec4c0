// The plan is the allocation: after the first step, a step takes no memory.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"
#include "tests/support/allocations.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSequence = 128;  // two tiles, for two context-parallel ranks

RunConfig config(ModelConfig::Family family, RunSection::ComputeDtype dtype) {
  RunConfig run;
  run.mutable_run()->set_compute_dtype(dtype);
  ModelConfig& model = *run.mutable_model();
  model.set_family(family);
  model.set_hidden_size(64);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(4);
  model.set_head_dim(16);
  model.set_intermediate_size(128);
  model.set_vocab_size(101);
  model.set_max_position_embeddings(kSequence);
  model.set_tie_word_embeddings(false);
  run.mutable_data()->set_sequence_length(kSequence);
  run.mutable_data()->set_global_batch_size(4);
  run.mutable_data()->set_micro_batch_size(1);
  return run;
}

struct Counts {
  int64_t second = 0, third = 0;  // calls of operator new in a step
  int64_t products = 0;           // matrix products of a step
  int64_t heap_growth = 0;        // bytes in use after the third step against after the second
};

Counts count(ModelConfig::Family family, RunSection::ComputeDtype dtype, int tp, int dp, int pp = 1, int zero_stage = 0,
             int cp = 1) {
  Counts counts;
  run_ranks(tp * dp * pp * cp, [&](Comm& world) {
    RunConfig run = config(family, dtype);
    run.mutable_parallel()->set_tp(tp);
    run.mutable_parallel()->set_dp(dp);
    run.mutable_parallel()->set_pp(pp);
    run.mutable_parallel()->set_zero_stage(zero_stage);
    run.mutable_parallel()->set_cp(cp);
    Assembly parts(run, plan_layout(run), world, 1);
    SyntheticSource source({.vocab = 101,
                            .sequence_length = kSequence,
                            .global_batch_size = 4,
                            .mean_document = 40,
                            .dp = dp,
                            .dp_rank = parts.mesh().coordinate(Axis::Dp)});
    const std::unique_ptr<Pipeline> pipeline = parts.training(source);
    int64_t before[4];
    int64_t heap[4];
    for (int step = 0; step < 4; ++step) {
      world.barrier();
      before[step] = allocations();
      heap[step] = static_cast<int64_t>(mallinfo2().uordblks);
      world.barrier();
      if (step < 3) pipeline->step(parts.context(), 4 * step, 1e-3, step + 1);
    }
    if (world.rank() != 0) return;
    counts.second = before[2] - before[1];
    counts.third = before[3] - before[2];
    counts.heap_growth = heap[3] - heap[2];
    // Of each rank: three products of each of the four linears of both blocks, and three of the head.
    counts.products = source.microbatches() * (3 * (4 * 2) + 3) * tp * dp;
  });
  return counts;
}

TEST(StepAllocations, NothingIsAllocatedInAStep) {
  for (const auto family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    for (const auto& [tp, dp, pp, zero, cp] : {std::tuple{1, 1, 1, 0, 1},
                                               {2, 2, 1, 0, 1},
                                               {1, 1, 2, 0, 1},
                                               {2, 1, 2, 0, 1},
                                               {1, 2, 1, 1, 1},
                                               {1, 2, 1, 2, 1},
                                               {1, 2, 2, 3, 1},
                                               {1, 1, 1, 0, 2},
                                               {1, 1, 1, 3, 2}}) {
      const Counts counts = count(family, RunSection::F64, tp, dp, pp, zero, cp);
      const std::string what =
          fmt::format("{} tp {} dp {} pp {} zero {} cp {}", ModelConfig::Family_Name(family), tp, dp, pp, zero, cp);
      EXPECT_EQ(counts.second, 0) << what;
      EXPECT_EQ(counts.third, 0) << what;
    }
  }
}

// oneDNN itself takes and returns a handful of small blocks to run a primitive; nothing else may, and nothing stays.
TEST(StepAllocations, OnlyTheMatrixLibraryTakesMemoryForAMoment) {
  constexpr int64_t kPerProduct = 16;
  for (const auto dtype : {RunSection::F32, RunSection::BF16}) {
    const Counts counts = count(ModelConfig::LLAMA, dtype, 1, 1);
    EXPECT_EQ(counts.second, counts.third);
    EXPECT_LE(counts.third, kPerProduct * counts.products);
    EXPECT_EQ(counts.heap_growth, 0);
  }
}

}  // namespace
}  // namespace tessera::testing
