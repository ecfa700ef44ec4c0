// The coordinate check passes for the maximal update parametrisation and fails for the standard one.
#include "launch/proof/coordinates.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/run.pb.h"
#include "tensor/check.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

RunConfig small() {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_hidden_size(32);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(2);
  model.set_intermediate_size(96);
  model.set_vocab_size(64);
  config.mutable_data()->set_sequence_length(32);
  config.mutable_data()->set_micro_batch_size(2);
  config.mutable_lr_schedule()->set_learning_rate(0.004);
  return config;
}

Coordinates found(ModelConfig::Parametrization parametrization, ModelConfig::Family family = ModelConfig::LLAMA) {
  RunConfig config = small();
  config.mutable_model()->set_family(family);
  config.mutable_model()->set_parametrization(parametrization);
  config.mutable_model()->set_mup_base_width(32);
  return check_coordinates(config, {.widths = {32, 64, 128, 256}, .steps = 4, .seeds = 2});
}

TEST(Coordinates, TheMaximalUpdateMovesAllWidthsAlike) {
  if (under_mpi()) GTEST_SKIP() << "one rank";
  for (const auto family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    const Coordinates coordinates = found(ModelConfig::MUP, family);
    ASSERT_EQ(coordinates.places.size(), 4u) << "embedding, two blocks, logits";
    // A wrong exponent of the table shows as 1/2 or more.
    for (size_t place = 0; place < coordinates.places.size(); ++place)
      EXPECT_LT(std::abs(coordinates.slope(place)), 0.25) << family << " " << coordinates.places[place];
  }
}

TEST(Coordinates, TheStandardParametrisationMovesWideModelsMore) {
  if (under_mpi()) GTEST_SKIP() << "one rank";
  const Coordinates coordinates = found(ModelConfig::STANDARD);
  for (const size_t place : {1, 2, 3}) EXPECT_GT(coordinates.slope(place), 0.5) << coordinates.places[place];
}

TEST(Coordinates, OtherSizesGrowWithTheWidth) {
  const RunConfig wide = at_width(small(), 96);
  EXPECT_EQ(wide.model().hidden_size(), 96);
  EXPECT_EQ(wide.model().num_attention_heads(), 6);
  EXPECT_EQ(wide.model().head_dim(), 16);
  EXPECT_EQ(wide.model().intermediate_size(), 288);
  EXPECT_THROW(at_width(small(), 40), UsageError);
}

}  // namespace
}  // namespace tessera::testing
