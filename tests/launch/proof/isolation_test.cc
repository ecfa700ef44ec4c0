// Documents stay apart: one token of a document is changed, and of every other document each token's loss and gradient
// at the embedding's output are bitwise what they were, however the microbatch and the model are cut.
//
// All tokens of a microbatch differ, so the embedding's row of a token has the gradient at that token's output. A
// token's loss is the loss of a microbatch in which no other token has a target.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"
#include "tests/parallel/context/packings.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kTokens = 320;
// Long enough to be split at every cp, on one tile, of one token, and ending where a tile does.
const std::vector<int64_t> kLengths = {150, 1, 41, 64, 3, 61};

// One microbatch of these documents, a step after another.
class Documents : public Source {
 public:
  explicit Documents(int64_t vocab) : segments_(packing(kLengths)) {
    for (auto* values : {&tokens_, &targets_, &position_, &document_}) values->resize(kTokens);
    std::iota(tokens_.begin(), tokens_.end(), 0);
    TESSERA_CHECK(vocab > kTokens, "a token for each, and one more");
    for (const Segment& segment : segments_) {
      for (int32_t i = segment.begin; i < segment.end; ++i) {
        position_[i] = i - segment.begin;
        document_[i] = segment.document;
      }
    }
    only(-1);
  }

  void change(int64_t i, int32_t token) {
    tokens_[i] = token;
    only(-1);
  }
  // Gives a target to that token alone, or (-1) to all that have a next one.
  void only(int64_t wanted) {
    for (int64_t i = 0; i < kTokens; ++i) {
      const bool last = i + 1 == kTokens || document_[i + 1] != document_[i];
      targets_[i] = !last && (wanted < 0 || wanted == i) ? tokens_[i + 1] : -1;
    }
    batch_ = {tokens_, targets_, position_, document_, segments_};
  }
  const std::vector<int32_t>& targets_now() const { return targets_; }
  int32_t document(int64_t i) const { return document_[i]; }

  void load(int64_t) override {}
  int microbatches() const override { return 1; }
  const Batch& batch(int) const override { return batch_; }
  int64_t targets() const override { return kTokens - std::count(targets_.begin(), targets_.end(), -1); }

 private:
  std::vector<Segment> segments_;
  std::vector<int32_t> tokens_, targets_, position_, document_;
  Batch batch_;
};

constexpr const char* kDefaultExchange = "gather";

struct Layout {
  int cp, pp;
  std::string exchange = kDefaultExchange;
};

RunConfig config_of(const Layout& layout, ModelConfig::Family family, RunSection::ComputeDtype dtype) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(dtype);
  ModelConfig& model = *config.mutable_model();
  model.set_family(family);
  model.set_hidden_size(16);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(family == ModelConfig::LLAMA ? 2 : 4);
  model.set_head_dim(4);
  model.set_intermediate_size(32);
  model.set_vocab_size(kTokens + 1);
  model.set_max_position_embeddings(kTokens);
  model.set_tie_word_embeddings(false);
  model.set_initializer_range(0.3);
  model.set_sliding_window(70);
  model.add_layer_types("sliding_attention");
  model.add_layer_types("full_attention");
  config.mutable_parallel()->set_cp(layout.cp);
  config.mutable_parallel()->set_pp(layout.pp);
  config.mutable_parallel()->set_context_exchange(layout.exchange);
  config.mutable_parallel()->set_dp(1);
  config.mutable_data()->set_sequence_length(kTokens);
  config.mutable_data()->set_global_batch_size(1);
  return config;
}

struct Seen {
  std::vector<double> losses;                 // by token, of those that were asked for
  std::vector<std::vector<double>> gradient;  // by token: of the embedding's row
  bool split = false;                         // a document lay on several ranks
};

// What a layout computes of the documents with token `changed` replaced by one that no document has; -1: none is.
Seen seen_by(const RunConfig& config, int64_t changed, std::span<const int64_t> tokens) {
  Seen seen;
  seen.gradient.resize(kTokens);
  run_ranks(config.parallel().cp() * config.parallel().pp(), [&](Comm& world) {
    Assembly parts(config, plan_layout(config), world, 1);
    Documents documents(config.model().vocab_size());
    if (changed >= 0) documents.change(changed, kTokens);
    const std::unique_ptr<Pipeline> evaluation = parts.evaluation(documents), training = parts.training(documents);
    for (const int64_t token : tokens) {
      documents.only(token);
      const double loss = evaluation->evaluate(parts.context(), 0, 1, 1).loss;
      if (world.rank() == 0) seen.losses.push_back(loss);
    }
    documents.only(-1);
    training->step(parts.context(), 0, 0.0, 1);
    if (world.rank() != 0) return;
    const ContextPlan* plan = training->source().batch(0).context;
    seen.split = plan != nullptr && plan->split_documents() > 0;
    for (const Parameter* p : parts.parameters()) {
      if (p->name != "embedding") continue;
      dispatch_float(p->gradient.dtype(), [&]<class T>(T) {
        const int64_t width = p->global_shape.row_size();
        for (int64_t i = 0; i < kTokens; ++i) {
          const auto row = p->gradient.span<T>().subspan(i * width, width);
          for (const T value : row) seen.gradient[i].push_back(static_cast<double>(value));
        }
      });
    }
  });
  return seen;
}

TEST(Isolation, OtherDocumentsDoNotNoticeAChange) {
  const Documents documents(kTokens + 1);
  const std::vector<int32_t> targets = documents.targets_now();
  using Case = std::pair<RunSection::ComputeDtype, ModelConfig::Family>;
  for (const auto& [dtype, family] :
       {Case{RunSection::F32, ModelConfig::LLAMA}, {RunSection::F64, ModelConfig::GPT2}}) {
    for (const Layout& layout : {Layout{1, 1},
                                 {2, 1},
                                 {4, 1},
                                 {1, 2},
                                 {2, 2},
                                 {4, 2},
                                 {2, 1, "ring"},
                                 {4, 2, "ring"},
                                 {2, 1, "ulysses"},
                                 {4, 2, "ulysses"},
                                 {4, 1, "ulysses-ring:2"}}) {
      const RunConfig config = config_of(layout, family, dtype);
      // The long document's middle, which others' tiles and ranks share.
      const int64_t changed = 97;
      SCOPED_TRACE(fmt::format("{} {} cp {} pp {} {}", RunSection::ComputeDtype_Name(dtype),
                               ModelConfig::Family_Name(family), layout.cp, layout.pp, layout.exchange));
      const bool every_token = layout.exchange == kDefaultExchange;  // an evaluation each
      std::vector<int64_t> tokens;
      for (int64_t i = 0; i < kTokens; ++i) {
        const bool other = documents.document(i) != documents.document(changed);
        if (targets[i] >= 0 && (i % 16 == 0 || (other && (every_token || i % 4 == 0)))) tokens.push_back(i);
      }
      const Seen before = seen_by(config, -1, tokens), after = seen_by(config, changed, tokens);
      EXPECT_EQ(before.split, layout.cp > 1);
      int64_t noticed = 0;
      for (size_t t = 0; t < tokens.size(); ++t) {
        if (documents.document(tokens[t]) != documents.document(changed)) {
          ASSERT_EQ(before.losses[t], after.losses[t]) << "loss of token " << tokens[t];
        } else {
          noticed += before.losses[t] != after.losses[t];
        }
      }
      EXPECT_GT(noticed, 2) << "tokens after it see the change";
      int64_t moved = 0;
      for (int64_t i = 0; i < kTokens; ++i) {
        if (documents.document(i) != documents.document(changed)) {
          ASSERT_EQ(before.gradient[i], after.gradient[i]) << "gradient of token " << i;
          ASSERT_TRUE(targets[i] < 0 || before.gradient[i] != std::vector<double>(16, 0.0));
        } else if (i != changed) {
          moved += before.gradient[i] != after.gradient[i];
        }
      }
      EXPECT_GT(moved, 100) << "tokens of its document have other gradients";
    }
  }
}

}  // namespace
}  // namespace tessera::testing
