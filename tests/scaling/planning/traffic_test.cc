// Bytes of a step, worked out by hand for a model whose sizes are powers of two. tests/launch/proof compares the same
// function with the counters of real steps.
#include "scaling/planning/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "data/data.pb.h"
#include "model/model.pb.h"
#include "parallel/parallel.pb.h"

namespace tessera {
namespace {

// hidden 32, 4 query heads and 2 key/value heads of 8, ffn 64, vocabulary 64, F32.
struct Settings {
  int tp = 1, pp = 1, cp = 1, dp = 1;
  int layers = 2, sequence = 32, batch = 4;
  int zero_stage = 0, zero_group = 0;
  bool tied = false, overlap = false;
  const char* wire = "full";
  const char* recompute = "none";
  const char* exchange = "gather";
};

Layout layout_of(const Settings& run) {
  ModelConfig model;
  model.set_hidden_size(32);
  model.set_num_hidden_layers(run.layers);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_head_dim(8);
  model.set_intermediate_size(64);
  model.set_vocab_size(64);
  model.set_max_position_embeddings(run.sequence);
  model.set_tie_word_embeddings(run.tied);
  ParallelConfig parallel;
  parallel.set_tp(run.tp);
  parallel.set_pp(run.pp);
  parallel.set_cp(run.cp);
  parallel.set_dp(run.dp);
  parallel.set_chunks(1);
  parallel.set_zero_stage(run.zero_stage);
  parallel.set_zero_group(run.zero_group);
  parallel.set_gradient_wire(run.wire);
  parallel.set_recompute(run.recompute);
  parallel.set_context_exchange(run.exchange);
  parallel.set_overlap(run.overlap);
  DataConfig data;
  data.set_sequence_length(run.sequence);
  data.set_global_batch_size(run.batch);
  return plan_layout({.model = model, .parallel = parallel, .data = data, .world = run.tp * run.pp * run.cp * run.dp});
}

int64_t sent(const std::vector<AxisTraffic>& traffic, const std::string& group, Collective kind) {
  const auto found =
      std::find_if(traffic.begin(), traffic.end(), [&](const AxisTraffic& axis) { return axis.group == group; });
  return found == traffic.end() ? 0 : found->bytes_of(kind);
}

std::vector<std::string> groups(const std::vector<AxisTraffic>& traffic) {
  std::vector<std::string> names;
  for (const AxisTraffic& axis : traffic) names.push_back(axis.group);
  return names;
}

TEST(StepTraffic, OneRankSendsNothing) { EXPECT_TRUE(step_traffic(layout_of({}), 0).empty()); }

TEST(StepTraffic, TensorPipelineAndDataParallel) {
  const Layout layout = layout_of({.tp = 2, .pp = 2, .dp = 2});
  const int64_t exchange = 32 * 32 * 4 / 2;                  // all tokens, less this rank's own
  const int64_t matrices = (2048 + 1024 + 6144 + 2048) / 2;  // qkv, out, gate_up and down, a table: over tp
  for (const int rank : {0, 7}) {
    const auto traffic = step_traffic(layout, rank);
    EXPECT_EQ(groups(traffic), (std::vector<std::string>{"dp*cp", "dp*cp*tp", "pp", "pp*dp*cp", "tp", "world"}));
    // Two microbatches of one block and one end. Block: 8 gathers and 4 scatters; either end: one each.
    EXPECT_EQ(sent(traffic, "tp", Collective::AllGather), 2 * 9 * exchange);
    EXPECT_EQ(sent(traffic, "tp", Collective::ReduceScatter), 2 * 5 * exchange);
    EXPECT_EQ(sent(traffic, "tp", Collective::AllReduce), rank == 0 ? 0 : 2 * 3 * 32 * 4);  // of the head
    EXPECT_EQ(sent(traffic, "pp", Collective::Send), 2 * 16 * 32 * 4);
    EXPECT_EQ(sent(traffic, "dp*cp", Collective::AllReduce), matrices * 4 + 8);  // and the target tokens
    const int64_t norms = rank == 0 ? 2 * 32 : 3 * 32;
    EXPECT_EQ(sent(traffic, "dp*cp*tp", Collective::AllReduce), 2 * norms * 4 * 3 / 4);
    // One number, whose part is the first of four ranks'.
    EXPECT_EQ(sent(traffic, "pp*dp*cp", Collective::AllReduce), rank == 0 ? 3 * 8 : 8);
    // 17 numbers over 8 ranks: parts of 3, and nothing for the last ones.
    EXPECT_EQ(sent(traffic, "world", Collective::AllReduce), rank == 0 ? (17 + 6 * 3) * 8 : 17 * 8);
  }
}

TEST(StepTraffic, BackwardInARowGathersOutputGradientsOnce) {
  const int64_t exchange = 32 * 32 * 4 / 2;
  const auto gathered = [&](const Settings& run) {
    return sent(step_traffic(layout_of(run), 0), "tp", Collective::AllGather) / exchange;
  };
  // Four microbatches of two blocks, the embedding and the head.
  EXPECT_EQ(gathered({.tp = 2}), 4 * (2 * 8 + 2));
  EXPECT_EQ(gathered({.tp = 2, .overlap = true}), 4 * (2 * 6 + 2));
  EXPECT_EQ(gathered({.tp = 2, .overlap = true, .recompute = "full"}), 4 * (2 * 8 + 2));
  EXPECT_EQ(gathered({.tp = 2, .overlap = true, .recompute = "selective"}), 4 * (2 * 6 + 2));
}

// Elements of the part of a rank of two: of a block's matrices, a table and a norm.
constexpr int64_t kBlock = 1024 + 512 + 2048 + 1024, kTable = 1024, kNorm = 16;

TEST(StepTraffic, ZeroGroupsReduceOverSharersThenReplicas) {
  const Layout layout = layout_of({.dp = 4, .layers = 1, .batch = 8, .zero_stage = 2, .zero_group = 2, .wire = "bf16"});
  const auto traffic = step_traffic(layout, 0);
  // Two microbatches; the head's table and the norms once a step.
  EXPECT_EQ(sent(traffic, "zero_shard*cp", Collective::AllToAll), (2 * (kBlock + kTable) + kTable) * 2);
  EXPECT_EQ(sent(traffic, "zero_shard*cp*tp", Collective::AllToAll), 3 * kNorm * 2);
  EXPECT_EQ(sent(traffic, "zero_shard*cp", Collective::ReduceScatter), 0);
  EXPECT_EQ(sent(traffic, "zero_replica", Collective::AllReduce), (kBlock + 2 * kTable + 3 * kNorm) * 4);
  EXPECT_EQ(sent(traffic, "zero_shard*cp", Collective::AllGather), (kBlock + 2 * kTable) * 4);
  EXPECT_EQ(sent(traffic, "zero_shard*cp*tp", Collective::AllGather), 3 * kNorm * 4);
  EXPECT_EQ(sent(traffic, "dp*cp", Collective::AllReduce), 2 * 3 * 8);  // target tokens, loss
  EXPECT_EQ(sent(step_traffic(layout, 3), "dp*cp", Collective::AllReduce), 2 * 8);
}

TEST(StepTraffic, ZeroStagesOnOnePipelineRank) {
  const int64_t matrices = 2 * kBlock + 2 * kTable, norms = 5 * kNorm;
  const auto one = step_traffic(layout_of({.dp = 2, .zero_stage = 1}), 0);
  EXPECT_EQ(sent(one, "dp*cp", Collective::ReduceScatter), matrices * 4);
  EXPECT_EQ(sent(one, "dp*cp", Collective::AllGather), matrices * 4);
  EXPECT_EQ(sent(one, "dp*cp*tp", Collective::ReduceScatter), norms * 4);
  // Every block forward for both microbatches; the first one backward once, as it then stays for the next forward, and
  // the last one never, as it stays from forward.
  const auto three = step_traffic(layout_of({.dp = 2, .zero_stage = 3}), 0);
  EXPECT_EQ(sent(three, "dp*cp", Collective::ReduceScatter), (2 * (2 * kBlock + kTable) + kTable) * 4);
  EXPECT_EQ(sent(three, "dp*cp", Collective::AllGather), (2 * 2 * (kBlock + kTable) + kBlock) * 4);
  EXPECT_EQ(sent(three, "dp*cp*tp", Collective::AllGather), (2 * 5 + 2) * kNorm * 4);
}

TEST(StepTraffic, ATiedTableIsAddedUpOverTheEnds) {
  EXPECT_EQ(sent(step_traffic(layout_of({.pp = 2, .tied = true}), 1), "tied_ends", Collective::AllReduce), 64 * 32 * 4);
  const Layout sharded = layout_of({.pp = 2, .dp = 2, .zero_stage = 1, .tied = true});
  EXPECT_EQ(sent(step_traffic(sharded, 0), "tied_ends", Collective::AllReduce), 32 * 32 * 4);
  EXPECT_EQ(sent(step_traffic(layout_of({.pp = 3, .layers = 3, .tied = true}), 1), "tied_ends", Collective::AllReduce),
            0);
}

// 256 tokens on two ranks of 192 slots; two microbatches.
TEST(StepTraffic, ContextParallelRanksSendTheWorstPacking) {
  const auto exchanged = [](const char* exchange, const char* recompute) {
    const Layout layout =
        layout_of({.cp = 2, .layers = 1, .sequence = 256, .batch = 2, .recompute = recompute, .exchange = exchange});
    return sent(step_traffic(layout, 1), "cp", Collective::Send);
  };
  const int64_t rows = 192 * 2 * 2 * 8 * 4;              // keys and values of all slots, to the other rank
  EXPECT_EQ(exchanged("gather", "none"), 2 * 3 * rows);  // forward, again in backward, and gradients back
  EXPECT_EQ(exchanged("gather", "selective"), 2 * 4 * rows);
  const int64_t head = 192 * 8 * 4;
  EXPECT_EQ(exchanged("ulysses", "none"), 2 * 3 * 6 * head);  // 2 of q, k and v each 1, and 2 of out; backward twice
}

}  // namespace
}  // namespace tessera
