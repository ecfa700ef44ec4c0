// What the parametrisation does to each parameter, by the table of model/shape/shape.h.
#include "model/shape/shape.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/model.pb.h"
#include "model/transformer.h"

namespace tessera::testing {
namespace {

ModelConfig config_of(ModelConfig::Family family, int64_t hidden) {
  ModelConfig config;
  config.set_family(family);
  config.set_hidden_size(hidden);
  config.set_num_hidden_layers(2);
  config.set_num_attention_heads(hidden / 16);
  config.set_num_key_value_heads(hidden / 16);
  config.set_head_dim(16);
  config.set_intermediate_size(4 * hidden);
  config.set_vocab_size(50);
  config.set_max_position_embeddings(32);
  config.set_tie_word_embeddings(family == ModelConfig::GPT2);
  return config;
}

TEST(ModelShape, MaximalUpdateFollowsItsTable) {
  for (const auto family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    for (const int64_t hidden : {64, 256}) {
      ModelConfig config = config_of(family, hidden);
      config.set_parametrization(ModelConfig::MUP);
      config.set_mup_base_width(64);
      config.set_mup_output_multiplier(0.5);
      config.set_mup_attention_multiplier(2);
      const double r = static_cast<double>(hidden) / 64;
      for (const int tp : {1, 2}) {
        const ModelShape shape = model_shape(config, {.tp = tp, .slots = 32});
        EXPECT_DOUBLE_EQ(shape.output_scale, 0.5 / r);
        EXPECT_DOUBLE_EQ(shape.attention_scale(), 2.0 / 16);
        Transformer model(shape, {.part = {.last_block = 2}});
        int matrices = 0;
        for (const Parameter* p : model.parameters()) {
          if (p->initialisation != Initialisation::Normal) {
            EXPECT_EQ(p->learning_rate_factor, 1) << p->name;
            continue;
          }
          const bool inside = p->name.starts_with("blocks.");
          const bool residual = p->name.ends_with(".out") || p->name.ends_with(".down");
          matrices += inside ? 1 : 0;
          EXPECT_DOUBLE_EQ(p->learning_rate_factor, inside ? 1 / r : 1) << p->name;
          EXPECT_DOUBLE_EQ(p->standard_deviation, 0.02 / (inside ? std::sqrt(r) : 1) / (residual ? 2 : 1)) << p->name;
        }
        EXPECT_EQ(matrices, 2 * 4) << "qkv, out, up, down";
      }
    }
  }
}

TEST(ModelShape, TheStandardParametrisationKnowsNoWidth) {
  for (const int64_t hidden : {64, 256}) {
    const ModelShape shape = model_shape(config_of(ModelConfig::LLAMA, hidden), {.slots = 32});
    EXPECT_EQ(shape.output_scale, 1);
    EXPECT_DOUBLE_EQ(shape.attention_scale(), 0.25);
    Transformer model(shape, {.part = {.last_block = 2}});
    for (const Parameter* p : model.parameters()) EXPECT_EQ(p->learning_rate_factor, 1) << p->name;
  }
}

}  // namespace
}  // namespace tessera::testing
