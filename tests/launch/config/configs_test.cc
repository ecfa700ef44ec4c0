// The example configs: each is read, resolves, and has the published number of parameters.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "launch/config/read.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

RunConfig resolved_example(const std::string& name) {
  RunConfig config;
  Origins origins;
  read_config(testing::source_dir() + "/configs/" + name + ".textproto", {}, config, origins);
  const int ranks = config.parallel().tp() * config.parallel().pp() * config.parallel().cp();
  resolve(config, origins, {.world_size = ranks, .tokenizer_vocab_size = 4096, .data = Surroundings::Data::NotNeeded});
  return config;
}

// Elements of all weights, biases and norms, by the architectures' papers (not by Tessera's own count).
int64_t published_parameters(const ModelConfig& m) {
  const int64_t h = m.hidden_size();
  const int64_t embedding = m.vocab_size() * h * (m.tie_word_embeddings() ? 1 : 2);
  if (m.family() == ModelConfig::GPT2) {
    const int64_t attention = 4 * h * h + 4 * h;
    const int64_t mlp = 2 * h * m.intermediate_size() + m.intermediate_size() + h;
    return embedding + m.max_position_embeddings() * h + m.num_hidden_layers() * (attention + mlp + 4 * h) + 2 * h;
  }
  const int64_t attention = 2 * h * m.head_dim() * (m.num_attention_heads() + m.num_key_value_heads());
  return embedding + m.num_hidden_layers() * (attention + 3 * h * m.intermediate_size() + 2 * h) + h;
}

TEST(Configs, HaveThePublishedSizes) {
  const std::map<std::string, int64_t> sizes = {
      {"gpt2_124m", 124'439'808},    {"gpt2_1558m", 1'557'611'200},   {"llama_1b", 1'235'814'400},
      {"llama_3b", 3'212'749'824},   {"llama_7b", 6'738'415'616},     {"llama_8b", 8'030'261'248},
      {"llama_70b", 70'553'706'496}, {"llama_405b", 405'853'388'800},
  };
  for (const auto& [name, parameters] : sizes) {
    EXPECT_EQ(published_parameters(resolved_example(name).model()), parameters) << name;
  }
}

TEST(Configs, AllResolve) {
  std::set<std::string> seen;
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_dir() + "/configs")) {
    if (entry.path().extension() != ".textproto") continue;
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    std::string run;
    EXPECT_NO_THROW(run = resolved_example(name).run().name());
    EXPECT_EQ(run, name);
    seen.insert(name);
  }
  for (const char* name : {"demo", "gpt2_124m", "gpt2_1558m", "llama_1b", "llama_3b", "llama_7b", "llama_8b",
                           "llama_70b", "llama_405b", "long_context"}) {
    EXPECT_TRUE(seen.contains(name)) << name;
  }
}

TEST(Configs, TheDemoCanGoOnAfterItsLastStep) {
  // Its decay is written down: were it left to follow run.steps, a longer run would change lr_schedule, which a resume
  // refuses.
  RunConfig config;
  Origins origins;
  read_config(testing::source_dir() + "/configs/demo.textproto", {}, config, origins);
  EXPECT_EQ(config.lr_schedule().decay_end_step(), config.run().steps());
  EXPECT_GT(config.lr_schedule().min_learning_rate(), 0);
}

}  // namespace
}  // namespace tessera
