// Bytes that a step puts on the wire, by group of ranks, against closed formulas in the sizes of the model alone.
#include <gtest/gtest.h>

#include "data/order/synthetic_source.h"
#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t hidden = 32, layers = 4, heads = 4, kv_heads = 2, ffn = 64, vocab = 64, sequence = 32, batch = 8;
};

RunConfig config_of(const Sizes& s, const MeshShape& mesh, const std::string& recompute, bool overlap) {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_hidden_size(s.hidden);
  model.set_num_hidden_layers(s.layers);
  model.set_num_attention_heads(s.heads);
  model.set_num_key_value_heads(s.kv_heads);
  model.set_intermediate_size(s.ffn);
  model.set_vocab_size(s.vocab);
  model.set_tie_word_embeddings(false);
  config.mutable_data()->set_sequence_length(s.sequence);
  config.mutable_data()->set_global_batch_size(s.batch);
  config.mutable_parallel()->set_tp(mesh.tp);
  config.mutable_parallel()->set_dp(mesh.dp);
  config.mutable_parallel()->set_pp(mesh.pp);
  config.mutable_parallel()->set_cp(mesh.cp);
  config.mutable_parallel()->set_recompute(recompute);
  config.mutable_parallel()->set_overlap(overlap);
  resolve(config, {}, {.world_size = mesh.size(), .data = Surroundings::Data::NotNeeded});
  return config;
}

// All sizes divide: an all-reduce sends 2 b (n - 1) / n.
int64_t all_reduce(int64_t elements, int64_t size, int64_t n) { return 2 * elements * size * (n - 1) / n; }

TEST(Traffic, OfAStepIsTheFormulas) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  const Sizes s;
  constexpr int64_t kElement = 4, kAccumulator = 4;  // F32
  for (const MeshShape mesh : {MeshShape{.tp = 2}, MeshShape{.dp = 2}, MeshShape{.pp = 2}, MeshShape{.pp = 4},
                               MeshShape{.pp = 2, .dp = 2, .tp = 2}}) {
    for (const auto& [recompute, overlap] :
         {std::pair{"none", true}, {"none", false}, {"selective", true}, {"full", true}, {"full", false}}) {
      run_ranks(mesh.size(), [&](Comm& world) {
        const RunConfig config = config_of(s, mesh, recompute, overlap);
        Assembly parts(config, plan_layout(config), world, 1);
        SyntheticSource source({.vocab = s.vocab,
                                .sequence_length = s.sequence,
                                .global_batch_size = s.batch,
                                .dp = mesh.dp,
                                .dp_rank = parts.mesh().coordinate(Axis::Dp)});
        const std::unique_ptr<Pipeline> pipeline = parts.training(source);
        const auto before = parts.mesh().traffic();
        pipeline->step(parts.context(), 0, 1e-3, 1);
        const auto after = parts.mesh().traffic();
        const auto sent = [&](const std::string& group) {
          const auto found = before.find(group);
          return after.contains(group)
                     ? after.at(group).total_bytes() - (found == before.end() ? 0 : found->second.total_bytes())
                     : 0;
        };

        const int64_t tp = mesh.tp, dp = mesh.dp, pp = mesh.pp, stage = parts.mesh().coordinate(Axis::Pp);
        const bool first = stage == 0, last = stage == pp - 1;
        const int64_t blocks = s.layers / pp, microbatches = s.batch / dp, tokens = s.sequence;
        const int64_t head_dim = s.hidden / s.heads;

        // Tensor parallel: an all-gather or reduce-scatter of all tokens sends b (tp - 1) / tp. A block has two of each
        // forward, two of each for the input's gradient, and four gathers for the weights'; making all of it again
        // repeats two gathers and one scatter. Where the list has a microbatch's two backwards in a row, no
        // message between, two of the gathers serve both. Embedding: one forward, one backward. Head: one each way, and
        // the maximum and two sums of every token.
        const int64_t exchange = tokens * s.hidden * kElement * (tp - 1) / tp;
        const int64_t again = std::string(recompute) == "full" ? 3 : 0;
        int64_t in_a_row = 0;  // blocks, over all microbatches
        const Schedule& actions = parts.schedule().ranks[stage];
        for (size_t i = 0; i + 1 < actions.size(); ++i) {
          const Action &input = actions[i], &weight = actions[i + 1];
          if (input.kind != ActionKind::BackwardInput || weight.kind != ActionKind::BackwardWeight) continue;
          ASSERT_EQ(input.blocks, weight.blocks);
          in_a_row += std::min<int64_t>(input.blocks.last, blocks) - input.blocks.first;
        }
        if (pp == 1) {
          EXPECT_EQ(in_a_row, microbatches * blocks);
        }
        const int64_t shared = overlap ? 2 * in_a_row : 0;
        const int64_t head = 2 * exchange + all_reduce(3 * tokens, kAccumulator, tp);
        EXPECT_EQ(sent("tp"), microbatches * (blocks * (12 + again) * exchange + first * 2 * exchange + last * head) -
                                  shared * exchange)
            << recompute;

        // Pipeline parallel: this rank's tokens over each border, forward and back.
        const int64_t boundary = tokens / tp * s.hidden * kElement;
        EXPECT_EQ(sent("pp"), microbatches * boundary * ((last ? 0 : 1) + (first ? 0 : 1)));

        // Data parallel: every gradient of this rank once, and the number of target tokens. Norms are whole on all tp
        // ranks, so their gradients are summed over those too.
        const int64_t qkv = (s.heads + 2 * s.kv_heads) * head_dim * s.hidden, out = s.heads * head_dim * s.hidden;
        const int64_t matrices = blocks * (qkv + out + 3 * s.ffn * s.hidden) + (first + last) * s.vocab * s.hidden;
        const int64_t norms = (2 * blocks + last) * s.hidden;
        const int64_t loss = pp == 1 ? 8 * 2 * (dp > 1 ? 1 : 0) : 8 * (dp > 1 ? 1 : 0);
        EXPECT_EQ(sent("dp*cp"), all_reduce(matrices / tp, kAccumulator, dp) + loss);
        EXPECT_EQ(sent("dp*cp*tp"), all_reduce(norms, kAccumulator, dp * tp));
      });
    }
  }
}

// Trading heads moves every slot, so its bytes follow from sizes alone; model/context_attention_test counts the rows
// that the other exchanges move. Heads are those of a tensor-parallel rank, over cp: two ranks have a copy each of one
// key/value head.
TEST(Traffic, OfContextParallelRanksIsTheFormula) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  Sizes s;
  s.sequence = 256;
  s.batch = 2;
  constexpr int64_t kElement = 4;
  for (const MeshShape mesh : {MeshShape{.cp = 4}, MeshShape{.cp = 2, .tp = 2}}) {
    for (const char* recompute : {"none", "selective", "full"}) {
      run_ranks(mesh.size(), [&](Comm& world) {
        RunConfig config = config_of(s, mesh, recompute, true);
        config.mutable_parallel()->set_context_exchange("ulysses");
        Assembly parts(config, plan_layout(config), world, 1);
        SyntheticSource source({.vocab = s.vocab, .sequence_length = s.sequence, .global_batch_size = s.batch});
        const std::unique_ptr<Pipeline> pipeline = parts.training(source);
        pipeline->step(parts.context(), 0, 1e-3, 1);
        const int64_t cp = mesh.cp, slots = (s.sequence * 102 / 100 / cp / (64 * mesh.tp) + 1) * 64 * mesh.tp;
        ASSERT_EQ(parts.shape().slots, slots);
        const int64_t q = s.heads / mesh.tp / cp, kv = std::max<int64_t>(1, s.kv_heads / mesh.tp / cp);
        const int64_t head = (cp - 1) * slots * s.hidden / s.heads * kElement;
        const int64_t forward = (2 * q + 2 * kv) * head, backward = (4 * q + 4 * kv) * head;
        const int64_t forwards = std::string(recompute) == "none" ? 1 : 2;
        EXPECT_EQ(parts.mesh().traffic().at("cp").total_bytes(), s.batch * s.layers * (forwards * forward + backward));
      });
    }
  }
}

}  // namespace
}  // namespace tessera::testing
