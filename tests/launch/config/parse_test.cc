#include "launch/config/parse.h"

#include <gtest/gtest.h>

#include "launch/config/text.h"
#include "launch/run.pb.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

using Messages = std::vector<std::string>;

Messages mistakes(const std::string& text) {
  RunConfig config;
  Origins origins;
  Problems problems;
  parse_config("run.textproto", text, config, origins, problems);
  return problems.messages();
}

TEST(ParseConfig, ReadsValuesAndNotesWhereTheyAre) {
  RunConfig config;
  Origins origins;
  Problems problems;
  parse_config("f",
               "run { name: \"a\" }\nmodel {\n  hidden_size: 64\n}\ndata {\n  train { path: \"x\" }\n  train {}\n}\n",
               config, origins, problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_EQ(config.run().name(), "a");
  EXPECT_EQ(config.model().hidden_size(), 64);
  EXPECT_EQ(config.data().train_size(), 2);
  EXPECT_EQ(origins.of("run.name"), "f:1:7");
  EXPECT_EQ(origins.of("model.hidden_size"), "f:3:3");
  EXPECT_EQ(origins.of("data.train[0].path"), "f:6:11");
  EXPECT_EQ(origins.of("data.train[1].path"), "f:7:3");  // not set: where the element is
  EXPECT_EQ(origins.of("model.head_dim"), "");
}

TEST(ParseConfig, AnUnknownFieldIsLocatedAndTheNearestNamed) {
  EXPECT_EQ(mistakes("model {\n  hiden_size: 3\n}"),
            Messages{"run.textproto:2:3: unknown field \"hiden_size\"; did you mean \"hidden_size\"?"});
  EXPECT_EQ(mistakes("modle { hidden_size: 3 }"),
            Messages{"run.textproto:1:1: unknown field \"modle\"; did you mean \"model\"?"});
}

TEST(ParseConfig, AFieldOfAnotherSectionIsNamedWithItsPath) {
  EXPECT_EQ(mistakes("run { hidden_size: 3 }"),
            Messages{"run.textproto:1:7: unknown field \"hidden_size\"; did you mean \"model.hidden_size\"?"});
}

TEST(ParseConfig, AnUnknownEnumValueIsLocatedAndTheNearestNamed) {
  EXPECT_EQ(mistakes("lr_schedule {\n  kind: COSIN\n}"),
            Messages{"run.textproto:2:9: unknown value \"COSIN\" of kind; did you mean \"COSINE\"?"});
  EXPECT_EQ(mistakes("model { family: MAMBA }"),
            Messages{"run.textproto:1:17: unknown value \"MAMBA\" of family; choose one of LLAMA, GPT2"});
}

TEST(ParseConfig, WrongTypesNameTheField) {
  EXPECT_EQ(mistakes("model {\n  hidden_size: twelve\n}"),
            Messages{"run.textproto:2:16: hidden_size: Expected integer, got: twelve"});
  EXPECT_EQ(mistakes("model { hidden_size: 1.5 }"),
            Messages{"run.textproto:1:22: hidden_size: Expected integer, got: 1.5"});
  EXPECT_EQ(mistakes("run { seed: -1 }"), Messages{"run.textproto:1:13: seed: Expected integer, got: -"});
}

TEST(ParseConfig, AllMistakesAreListedInTheOrderOfTheFile) {
  EXPECT_EQ(mistakes("run {\n"
                     "  nmae: \"x\"\n"
                     "  steps: many\n"
                     "}\n"
                     "model {\n"
                     "  familly: LLAMA\n"
                     "  hidden_size: 1.5  # not whole\n"
                     "  tie_word_embeddings: perhaps\n"
                     "}\n"
                     "lr_schedule { kind: COSIN }\n"),
            (Messages{"run.textproto:2:3: unknown field \"nmae\"; did you mean \"name\"?",
                      "run.textproto:3:10: steps: Expected integer, got: many",
                      "run.textproto:6:3: unknown field \"familly\"; did you mean \"family\"?",
                      "run.textproto:7:16: hidden_size: Expected integer, got: 1.5",
                      "run.textproto:8:24: unknown value \"perhaps\" of tie_word_embeddings; choose true or false",
                      "run.textproto:10:21: unknown value \"COSIN\" of kind; did you mean \"COSINE\"?"}));
}

TEST(ParseConfig, SyntaxErrorsAreToldOnceAndEnd) {
  const Messages open = mistakes("model {\n  hidden_size: 3\n");
  ASSERT_EQ(open.size(), 1u);
  EXPECT_EQ(open[0].substr(0, 18), "run.textproto:3:1:");
  // The value is missing; the line after it must not be taken for the mistake's own and left out.
  EXPECT_EQ(mistakes("model {\n  hidden_size:\n  num_hidden_layers: 3\n}\n").size(), 1u);
  EXPECT_EQ(mistakes("model { hidden_size: 1 hidden_size: 2 }").size(), 1u);
}

TEST(ParseConfig, AnEmptyFileIsAConfigOfDefaults) { EXPECT_TRUE(mistakes("# nothing\n").empty()); }

// Random changes of a config: mistakes are found or not, and nothing worse happens.
void survive_nonsense(uint64_t rounds) {
  const std::string whole =
      "run { name: \"x\" steps: 10 seed: 5 compute_dtype: BF16 }\n"
      "model { hidden_size: 32 num_hidden_layers: 2 rope_theta: 1e4 }\n"
      "data { train { path: \"a\" weight: 0.5 } train { path: 'b' } sequence_length: 32 }  # two\n"
      "lr_schedule { kind: WSD learning_rate: 0.01 }\ncheckpoint { every_steps: 4 asynchronous: true }\n";
  const RandomStream random(1, "config nonsense");
  uint64_t refused = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    std::string text = whole;
    for (uint64_t i = 0; i <= random.below(round * 64, 4); ++i) {
      const size_t at = random.below(round * 64 + 4 * i + 1, text.size());
      const uint64_t more = round * 64 + 4 * i + 3;
      switch (random.below(round * 64 + 4 * i + 2, 3)) {
        case 0:
          text[at] = static_cast<char>(random.bits(more));
          break;
        case 1:
          text.erase(at, 1 + random.below(more, 8));
          break;
        default:
          text.insert(at, text.substr(random.below(more, text.size()), 16));
      }
    }
    refused += !mistakes(text).empty();
  }
  EXPECT_GT(refused, rounds / 2);
}

TEST(ParseConfig, SurvivesNonsense) { survive_nonsense(3000); }
TEST(ParseConfig, DISABLED_SurvivesMuchNonsense) { survive_nonsense(100000); }

}  // namespace
}  // namespace tessera
