// Bytes that a step puts on the wire, by group of ranks, against what its layout says
// (scaling/planning/traffic.h). tests/scaling/planning/traffic_test.cc has the formulas of a small case by hand.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/order/synthetic_source.h"
#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "tests/launch/proof/counted_traffic.h"
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

// One step on as many ranks as the layout has.
void expect_traffic(const RunConfig& config, const std::string& what) {
  const Layout layout = plan_layout(config);
  run_ranks(layout.mesh.size(), [&](Comm& world) {
    Assembly assembly(config, layout, world, 1);
    SyntheticSource source({.vocab = config.model().vocab_size(),
                            .sequence_length = config.data().sequence_length(),
                            .global_batch_size = config.data().global_batch_size(),
                            .dp = layout.mesh.dp,
                            .dp_rank = assembly.mesh().coordinate(Axis::Dp)});
    const std::unique_ptr<Pipeline> pipeline = assembly.training(source);
    const auto before = assembly.mesh().traffic();
    pipeline->step(assembly.context(), 0, 1e-3, 1);
    expect_traffic_of_step(layout, world.rank(), before, assembly.mesh().traffic(), what);
  });
}

TEST(Traffic, OfAStepIsWhatTheLayoutSays) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  for (const MeshShape mesh : {MeshShape{.tp = 2}, MeshShape{.dp = 2}, MeshShape{.pp = 2}, MeshShape{.pp = 4},
                               MeshShape{.pp = 2, .dp = 2, .tp = 2}}) {
    for (const auto& [recompute, overlap] :
         {std::pair{"none", true}, {"none", false}, {"selective", true}, {"full", true}, {"full", false}}) {
      expect_traffic(config_of({}, mesh, recompute, overlap),
                     fmt::format("pp {} dp {} tp {}, recompute {}, {}", mesh.pp, mesh.dp, mesh.tp, recompute,
                                 overlap ? "overlapped" : "one by one"));
    }
  }
}

// Trading heads moves every slot, so its bytes follow from sizes alone; model/context_attention_test counts the rows
// that the other exchanges move. Heads are those of a tensor-parallel rank, over cp: two ranks have a copy each of one
// key/value head.
TEST(Traffic, OfContextParallelRanksIsWhatTheLayoutSays) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  Sizes s;
  s.sequence = 256;
  s.batch = 2;
  for (const MeshShape mesh : {MeshShape{.cp = 4}, MeshShape{.cp = 2, .tp = 2}}) {
    for (const char* recompute : {"none", "selective", "full"}) {
      RunConfig config = config_of(s, mesh, recompute, true);
      config.mutable_parallel()->set_context_exchange("ulysses");
      expect_traffic(config, fmt::format("cp {} tp {}, recompute {}", mesh.cp, mesh.tp, recompute));
    }
  }
}

}  // namespace
}  // namespace tessera::testing
