#include "data/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "tensor/check.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

std::string read_golden(const std::string& name) {
  std::ifstream file(testing::source_dir() + "/tests/data/tokenizers/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Json base() { return Json::parse(read_golden("gpt2.json")); }

// What the refusal of the file says; empty when it is accepted.
std::string refusal(const std::string& text) {
  try {
    parse_tokenizer_json(text, "FILE");
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

struct Change {
  const char* pointer;
  const char* value;
  const char* said;  // in the refusal; nullptr: accepted
};

TEST(TokenizerJson, SaysWhatItRefuses) {
  ASSERT_EQ(refusal(base().dump()), "");
  const Change changes[] = {
      {"/normalizer", R"({"type": "Lowercase"})", "normalizer"},
      {"/truncation", R"({"max_length": 5})", "truncation"},
      {"/padding", R"({"strategy": "BatchLongest"})", "padding"},
      {"/pre_tokenizer", "null", "pre_tokenizer is missing"},
      {"/pre_tokenizer", R"({"type": "Whitespace"})", "pre_tokenizer.type Whitespace"},
      {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": []})", "no ByteLevel"},
      {"/pre_tokenizer/add_prefix_space", "true", "add_prefix_space"},
      {"/pre_tokenizer/use_regex", "\"yes\"", "use_regex"},
      {"/pre_tokenizer/use_regex", "false", nullptr},
      {"/decoder", R"({"type": "Metaspace"})", "decoder.type"},
      {"/decoder", "null", nullptr},
      {"/post_processor", R"({"type": "TemplateProcessing", "single": []})", nullptr},
      {"/post_processor", R"({"type": "Sequence", "processors": [{"type": "Rewrite"}]})",
       "post_processor.processors[0].type Rewrite"},
      {"/model/type", "\"Unigram\"", "model.type"},
      {"/model/dropout", "0.1", "model.dropout"},
      {"/model/dropout", "0.0", nullptr},
      {"/model/unk_token", "\"<unk>\"", "model.unk_token"},
      {"/model/byte_fallback", "true", "model.byte_fallback"},
      {"/model/continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
      {"/model/continuing_subword_prefix", "\"\"", nullptr},
      {"/model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
      {"/model/ignore_merges", "true", nullptr},
      {"/model/vocab", "[]", "model.vocab is not an object"},
      {"/model/vocab/a", "-1", "model.vocab[\"a\"]"},
      {"/model/vocab/a", "2097152", "ids are integers from 0 to 2097151"},
      {"/model/vocab/a", "1e30", "model.vocab[\"a\"]"},
      {"/model/vocab/a", "\"1\"", "model.vocab[\"a\"]"},
      {"/model/vocab/a", "0", "the same id 0"},
      {"/model/vocab/", "5000", "without a name"},
      {"/model/merges", "{}", "model.merges is not a list"},
      {"/model/merges/0", "\"a zzzz\"", "model.merges[0] names \"zzzz\""},
      {"/model/merges/0", "\"a b c\"", "model.merges[0] is"},
      {"/model/merges/0", "[\"a\"]", "model.merges[0] is"},
      {"/model/merges/0", "[\"%\", \"%\"]", "model.merges[0] names \"%%\""},
      {"/added_tokens", "{}", "added_tokens is not a list"},
      {"/added_tokens/0/id", "100000000", "added_tokens[0]"},
      {"/added_tokens/0/id", "5", "against model.vocab"},
      {"/added_tokens/0/content", "\"\"", "content is empty"},
      {"/added_tokens/0/content", "\"<|other|>\"", "against model.vocab"},
      {"/added_tokens/0/special", "1", "special"},
      {"/added_tokens/1", R"({"id": 0, "content": "<x>"})", "repeats"},
      {"/added_tokens/1", R"({"id": 900, "content": "<x>", "lstrip": true})", "lstrip"},
      {"/added_tokens/1", R"({"id": 900, "content": "<x>", "lstrip": true, "special": true})", nullptr},
  };
  for (const Change& change : changes) {
    Json root = base();
    root[Json::json_pointer(change.pointer)] = Json::parse(change.value);
    const std::string said = refusal(root.dump());
    if (change.said == nullptr) {
      EXPECT_EQ(said, "") << change.pointer;
    } else {
      EXPECT_NE(said.find(change.said), std::string::npos) << change.pointer << " " << change.value << ": " << said;
      EXPECT_EQ(said.rfind("tokenizer FILE: ", 0), 0u) << said;
    }
  }
}

TEST(TokenizerJson, SplitsAreIsolatedAndKnown) {
  const auto with_split = [](const std::string& regex, const std::string& behavior, bool invert) {
    Json root = base();
    root["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", invert}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    return root.dump();
  };
  const std::string llama3(split_regex(SplitPattern::Llama3)), digit(split_regex(SplitPattern::Digit));
  EXPECT_EQ(parse_tokenizer_json(with_split(llama3, "Isolated", false), "FILE").split,
            std::vector{SplitPattern::Llama3});
  EXPECT_EQ(refusal(with_split(llama3, "Removed", true)), "");
  EXPECT_NE(refusal(with_split(digit, "Removed", true)).find("behavior"), std::string::npos);
  EXPECT_NE(refusal(with_split(llama3, "MergedWithNext", false)).find("MergedWithNext"), std::string::npos);
  EXPECT_NE(refusal(with_split("(x+x+)+y", "Isolated", false)).find("(x+x+)+y"), std::string::npos);
}

TEST(TokenizerJson, NothingFollowsByteLevel) {
  Json root = base();
  const Json byte_level = root["pre_tokenizer"];
  root["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {byte_level, byte_level}}};
  EXPECT_NE(refusal(root.dump()).find("pretokenizers[1]"), std::string::npos);
}

TEST(TokenizerJson, AllBytesAreNeeded) {
  Json root = base();
  root["model"]["merges"] = Json::array();
  root["model"]["vocab"].erase("\u0120");
  EXPECT_NE(refusal(root.dump()).find("no token for byte 0x20"), std::string::npos) << refusal(root.dump());
}

TEST(TokenizerJson, WritesWhatItReads) {
  for (const char* name : {"gpt2.json", "llama3.json", "qwen2.json", "digits.json"}) {
    const TokenizerDefinition once = parse_tokenizer_json(read_golden(name), name);
    const TokenizerDefinition twice = parse_tokenizer_json(write_tokenizer_json(once), name);
    ASSERT_EQ(once.vocabulary.size(), twice.vocabulary.size());
    for (size_t i = 0; i < once.vocabulary.size(); ++i) {
      EXPECT_EQ(once.vocabulary[i].id, twice.vocabulary[i].id);
      EXPECT_EQ(once.vocabulary[i].bytes, twice.vocabulary[i].bytes);
    }
    EXPECT_EQ(once.merges, twice.merges);
    EXPECT_FALSE(once.merges.empty());
    EXPECT_EQ(once.split, twice.split);
    EXPECT_EQ(once.ignore_merges, twice.ignore_merges);
    ASSERT_EQ(once.added_tokens.size(), twice.added_tokens.size());
    for (size_t i = 0; i < once.added_tokens.size(); ++i) {
      EXPECT_EQ(once.added_tokens[i].id, twice.added_tokens[i].id);
      EXPECT_EQ(once.added_tokens[i].content, twice.added_tokens[i].content);
      EXPECT_EQ(once.added_tokens[i].special, twice.added_tokens[i].special);
      EXPECT_EQ(once.added_tokens[i].normalized, twice.added_tokens[i].normalized);
    }
  }
}

TEST(TokenizerJson, BrokenFilesAreRefused) {
  const std::string text = read_golden("gpt2.json");
  for (const char* broken : {"", "[]", "7", "{", "\xFF", "{\"a\": 1, \"a\": 2}"}) EXPECT_NE(refusal(broken), "");
  EXPECT_NE(refusal("{\"a\": {\"b\": 1, \"b\": 2}}").find("twice"), std::string::npos);
  EXPECT_NE(refusal(std::string(100'000, '[')).find("nests deeper"), std::string::npos);
  for (size_t length = 0; length + 2 < text.size(); length += 37) EXPECT_NE(refusal(text.substr(0, length)), "");
}

// Whatever a damaged file holds, it is accepted or refused with a DataError: no crash, no other exception.
TEST(TokenizerJson, DamagedFilesDoNoHarm) {
  std::mt19937 random(3);
  const std::string text = read_golden("llama3.json");
  int refused = 0;
  for (int round = 0; round < 500; ++round) {
    std::string damaged = text;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      const size_t place = random() % damaged.size();
      switch (random() % 3) {
        case 0:
          damaged[place] = static_cast<char>(random());
          break;
        case 1:
          damaged.erase(place, 1 + random() % 20);
          break;
        default:
          damaged.insert(place, damaged.substr(random() % damaged.size(), random() % 50));
      }
    }
    if (!refusal(damaged).empty()) ++refused;
  }
  EXPECT_GT(refused, 250);
}

}  // namespace
}  // namespace tessera
