#include "model/shape/windows.h"

#include <gtest/gtest.h>

#include "model/model.pb.h"
#include "model/shape/shape.h"
#include "tensor/check.h"

namespace tessera {
namespace {

ModelConfig config(int64_t layers, int64_t window) {
  ModelConfig model;
  model.set_num_hidden_layers(layers);
  model.set_sliding_window(window);
  return model;
}

using Windows = std::vector<int64_t>;

TEST(Windows, AllLayersOrNone) {
  EXPECT_EQ(layer_windows(config(3, 0)), Windows(3, 0));
  EXPECT_EQ(layer_windows(config(3, 128)), Windows(3, 128));
}

TEST(Windows, LayerTypesRepeat) {
  ModelConfig gemma = config(8, 100);
  gemma.add_layer_types("sliding_attention");
  gemma.add_layer_types("sliding_attention");
  gemma.add_layer_types("full_attention");
  EXPECT_EQ(layer_windows(gemma), (Windows{100, 100, 0, 100, 100, 0, 100, 100}));

  ModelShape shape;
  for (const int64_t window : layer_windows(gemma)) shape.layers.push_back({.attention = {.window = window}});
  const auto kinds = attention_kinds(shape);
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0].window, 100);
  EXPECT_EQ(kinds[0].layers, 6);
  EXPECT_EQ(kinds[1].window, 0);
  EXPECT_EQ(kinds[1].layers, 2);
}

TEST(Windows, LayersBelowMaxWindowLayersSeeAll) {
  ModelConfig qwen = config(4, 64);
  qwen.set_max_window_layers(3);
  EXPECT_EQ(layer_windows(qwen), (Windows{0, 0, 0, 64}));
  qwen.set_max_window_layers(4);
  EXPECT_EQ(layer_windows(qwen), Windows(4, 0));
}

TEST(Windows, ContradictionsAreRefused) {
  const auto refuses = [](const auto& change) {
    ModelConfig model = config(2, 64);
    change(model);
    EXPECT_THROW(layer_windows(model), UsageError);
  };
  refuses([](ModelConfig& m) { m.add_layer_types("chunked_attention"); });
  refuses([](ModelConfig& m) { m.set_max_window_layers(3); });
  refuses([](ModelConfig& m) {
    for (int i = 0; i < 3; ++i) m.add_layer_types("full_attention");
  });
  refuses([](ModelConfig& m) {
    m.add_layer_types("sliding_attention");
    m.set_sliding_window(0);
  });
  refuses([](ModelConfig& m) {
    m.set_max_window_layers(1);
    m.set_sliding_window(0);
  });
  refuses([](ModelConfig& m) {
    m.set_max_window_layers(1);
    m.add_layer_types("full_attention");
  });
}

}  // namespace
}  // namespace tessera
