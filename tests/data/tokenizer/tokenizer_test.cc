#include "data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <thread>

#include "tensor/check.h"
#include "tests/data/tokenizer/tokenizer_texts.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

const std::string kFolder = testing::source_dir() + "/tests/data/tokenizers/";

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string write_file(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> tokens;
  tokenizer.encode(text, tokens);
  return tokens;
}

template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

TEST(Tokenizer, BytesEncodeAnyBytes) {
  const Tokenizer tokenizer = Tokenizer::bytes();
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_EQ(tokenizer.end_of_text(), 256);
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), 0);
  std::vector<int32_t> expected(256);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(encode(tokenizer, text), expected);
  EXPECT_EQ(tokenizer.decode(expected), text);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', 256}), "a<|endoftext|>");
}

TEST(Tokenizer, BytesAreSavedAndLoaded) {
  const std::string path = ::testing::TempDir() + "bytes.json";
  Tokenizer::bytes().save(path);
  const Tokenizer loaded = Tokenizer::load(path);
  EXPECT_EQ(loaded.fingerprint(), Tokenizer::bytes().fingerprint());
  EXPECT_EQ(encode(loaded, "\xFF\x80 a"), (std::vector<int32_t>{0xFF, 0x80, ' ', 'a'}));
}

// Encodings that Hugging Face's tokenizers made with the same files (tests/data/tokenizer/tokenizer_oracle.py --write-golden).
TEST(Tokenizer, EncodesAsHuggingFace) {
  const Json cases = Json::parse(read_file(kFolder + "golden.json"));
  ASSERT_GE(cases.size(), 60u);
  for (const Json& one : cases) {
    const Tokenizer tokenizer = Tokenizer::load(kFolder + one["tokenizer"].get<std::string>());
    const std::string text = one["text"];
    const auto tokens = encode(tokenizer, text);
    EXPECT_EQ(tokens, one["ids"].get<std::vector<int32_t>>()) << one["tokenizer"] << ": " << text;
    EXPECT_EQ(tokenizer.decode(tokens), text);
  }
}

TEST(Tokenizer, SpecialTokensInTextAreText) {
  const Tokenizer tokenizer = Tokenizer::load(kFolder + "gpt2.json");
  const auto tokens = encode(tokenizer, "a<|endoftext|>");
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), tokenizer.end_of_text()), 0);
  EXPECT_EQ(tokenizer.decode(tokens), "a<|endoftext|>");
  // Not even where whole pieces are looked up in the vocabulary: this one lists its special token there as "special".
  std::string file = read_file(kFolder + "llama3.json");
  for (size_t at; (at = file.find("<|end_of_text|>")) != std::string::npos;) file.replace(at, 15, "</s>");
  Json root = Json::parse(file);
  root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Tokenizer whole = Tokenizer::load(write_file("whole.json", root.dump()));
  EXPECT_EQ(encode(whole, "zebra").size(), 1u);
  EXPECT_EQ(std::ranges::count(encode(whole, "</s>"), whole.end_of_text()), 0);
}

TEST(Tokenizer, EndOfTextHasOneOfThreeNames) {
  EXPECT_EQ(Tokenizer::load(kFolder + "llama3.json").end_of_text(), 0);
  Json root = Json::parse(read_file(kFolder + "gpt2.json"));
  const auto load_with = [&](const Json& added) {
    root["added_tokens"] = added;
    return refusal([&] { Tokenizer::load(write_file("end.json", root.dump())); });
  };
  EXPECT_EQ(load_with({{{"id", 5000}, {"content", "</s>"}, {"special", true}}}), "");
  for (const Json& added : {Json({{{"id", 5000}, {"content", "<eos>"}, {"special", true}}}),
                            Json({{{"id", 5000}, {"content", "</s>"}, {"special", false}}}), Json::array()})
    EXPECT_NE(load_with(added).find("<|endoftext|>"), std::string::npos) << added;
}

TEST(Tokenizer, TextMustBeUtf8) {
  const Tokenizer tokenizer = Tokenizer::load(kFolder + "gpt2.json");
  const std::string said = refusal([&] { encode(tokenizer, "good \xC3\xA9 bad \xED\xA0\x80"); });
  EXPECT_NE(said.find("byte offset 12"), std::string::npos) << said;
}

TEST(Tokenizer, TokensOutsideTheVocabularyAreNamed) {
  Json root = Json::parse(read_file(kFolder + "gpt2.json"));
  root["added_tokens"].push_back({{"id", 5000}, {"content", "<far>"}, {"special", true}});
  const Tokenizer tokenizer = Tokenizer::load(write_file("holes.json", root.dump()));
  EXPECT_EQ(tokenizer.vocab_size(), 5001);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{5000}), "<far>");
  for (const int32_t token : {-1, 5001, 4999, std::numeric_limits<int32_t>::max()}) {
    const std::string said = refusal([&] { tokenizer.decode(std::vector<int32_t>{1, token}); });
    EXPECT_NE(said.find("token " + std::to_string(token) + " at place 1"), std::string::npos) << said;
  }
}

TEST(Tokenizer, SavingALoadedFileKeepsAllOfIt) {
  Json root = Json::parse(read_file(kFolder + "llama3.json"));
  root["post_processor"] = {{"type", "TemplateProcessing"}, {"single", Json::array()}};
  const std::string from = write_file("from.json", root.dump(3)), to = ::testing::TempDir() + "to.json";
  Tokenizer::load(from).save(to);
  EXPECT_EQ(read_file(to), read_file(from));
}

TEST(Tokenizer, FingerprintsTellEncodingsApart) {
  const Json root = Json::parse(read_file(kFolder + "llama3.json"));
  const auto fingerprint = [](const Json& file) {
    return Tokenizer::load(write_file("print.json", file.dump())).fingerprint();
  };
  const std::string original = fingerprint(root);
  EXPECT_EQ(original.size(), 32u);
  Json same = root;
  same["post_processor"] = {{"type", "TemplateProcessing"}};
  EXPECT_EQ(fingerprint(same), original);

  Json other = root;
  std::swap(other["model"]["merges"][0], other["model"]["merges"][1]);
  EXPECT_NE(fingerprint(other), original);
  other = root;
  other["model"]["ignore_merges"] = false;
  EXPECT_NE(fingerprint(other), original);
  other = root;
  std::swap(other["model"]["vocab"]["a"], other["model"]["vocab"]["b"]);
  EXPECT_NE(fingerprint(other), original);
  other = root;
  other["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_NE(fingerprint(other), original);
  other = root;
  other["added_tokens"].push_back({{"id", 4000}, {"content", "<x>"}, {"special", false}});
  const std::string plain = fingerprint(other);
  EXPECT_NE(plain, original);
  other["added_tokens"].back()["special"] = true;
  EXPECT_NE(fingerprint(other), plain);
}

TEST(Tokenizer, ThreadsShareOne) {
  const Tokenizer tokenizer = Tokenizer::load(kFolder + "qwen2.json");
  std::mt19937 random(9);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(random, 100));
    expected.push_back(encode(tokenizer, texts.back()));
    EXPECT_EQ(tokenizer.decode(expected.back()), texts.back());
  }
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (int& count : wrong) {
      threads.emplace_back([&] {
        for (size_t i = 0; i < texts.size(); ++i) count += encode(tokenizer, texts[i]) != expected[i];
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(Tokenizer, FilesThatCannotBeReadOrWrittenAreNamed) {
  const std::string missing = ::testing::TempDir() + "missing/tokenizer.json";
  EXPECT_NE(refusal([&] { Tokenizer::load(missing); }).find(missing), std::string::npos);
  EXPECT_NE(refusal([&] { Tokenizer::load(::testing::TempDir()); }), "");
  EXPECT_THROW(Tokenizer::bytes().save(missing), IoError);
}

TEST(Tokenizer, NothingHalfWrittenStaysOfASaveThatFails) {
  const std::string directory = ::testing::TempDir() + "tokenizer_in_the_way_" + std::to_string(::getpid());
  std::filesystem::create_directories(directory + "/tokenizer.json/x");  // no file can take a directory's name
  EXPECT_THROW(Tokenizer::bytes().save(directory + "/tokenizer.json"), IoError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 1);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tessera
