// tessera tokenizer, as users run it.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/program.h"

namespace tessera {
namespace {

struct Outcome {
  int code = -1;
  std::string output;
};

// `input | tessera tokenizer ARGUMENTS`, where input is a shell command; standard error is mixed in only on failure.
Outcome tokenizer(const std::string& arguments, const std::string& input = "true") {
  const std::string errors = ::testing::TempDir() + "tokenizer_errors";
  const std::string command =
      input + " | " + testing::binary_dir() + "/tessera tokenizer " + arguments + " 2>" + errors;
  Outcome outcome;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) outcome.output.push_back(static_cast<char>(c));
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (outcome.code != 0) {
    std::ifstream file(errors);
    outcome.output.append(std::istreambuf_iterator<char>(file), {});
  }
  return outcome;
}

std::string write_file(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

nlohmann::json last_line(const std::string& output) {
  const size_t end = output.find_last_not_of('\n');
  return nlohmann::json::parse(output.substr(output.rfind('\n', end) + 1));
}

TEST(TokenizerCommand, TrainsEncodesAndDecodes) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "the tokenizer counts the words, number " + std::to_string(i) + "\n";
  const std::string corpus = write_file("tokenizer_corpus.txt", text);
  const std::string directory = ::testing::TempDir() + "trained_by_command";
  std::filesystem::remove_all(directory);
  const std::string file = directory + "/made/on/the/way/tokenizer.json";
  for (const std::string pattern : {"gpt2", "llama3"}) {
    const Outcome trained = tokenizer("train --input " + corpus + " --output " + file +
                                      " --vocab-size 280 --threads 2 --json --pattern " + pattern);
    ASSERT_EQ(trained.code, 0) << trained.output;
    const auto report = last_line(trained.output);
    EXPECT_EQ(report["vocab_size"], 280);
    EXPECT_EQ(report["merges"], 280 - 257);
    EXPECT_EQ(report["bytes"], text.size());
    EXPECT_EQ(report["fingerprint"].get<std::string>().size(), 32u);
    EXPECT_GT(report["bytes_per_token"], 2.0);

    const Outcome encoded = tokenizer("encode --tokenizer " + file + " --json " + corpus);
    ASSERT_EQ(encoded.code, 0) << encoded.output;
    const auto encoding = last_line(encoded.output);
    EXPECT_EQ(encoding["tokens"], encoding["ids"].size());
    EXPECT_EQ(encoding["fingerprint"], report["fingerprint"]);
    EXPECT_DOUBLE_EQ(static_cast<double>(text.size()) / encoding["tokens"].get<double>(), report["bytes_per_token"]);

    const Outcome ids = tokenizer("encode --tokenizer " + file + " " + corpus);
    const Outcome decoded =
        tokenizer("decode --tokenizer " + file, "cat " + write_file("tokenizer_ids.txt", ids.output));
    EXPECT_EQ(decoded.code, 0) << decoded.output;
    EXPECT_EQ(decoded.output, text);
  }
}

TEST(TokenizerCommand, BytesNeedNoText) {
  const std::string file = ::testing::TempDir() + "bytes_by_command.json";
  const Outcome made = tokenizer("train --bytes --json --output " + file);
  ASSERT_EQ(made.code, 0) << made.output;
  EXPECT_EQ(last_line(made.output)["vocab_size"], 257);
  for (const std::string& name : {file, std::string("bytes")}) {
    const Outcome encoded = tokenizer("encode --tokenizer " + name, "printf 'A\\377'");
    EXPECT_EQ(encoded.output, "65 255\n");
  }
  EXPECT_EQ(tokenizer("train --bytes --vocab-size 300 --output " + file).code, 2);
}

TEST(TokenizerCommand, MistakesEndWithTheirCodes) {
  const std::string file = ::testing::TempDir() + "never_written.json";
  std::filesystem::remove(file);
  const std::string empty = write_file("tokenizer_empty.txt", "");
  const std::string text = write_file("tokenizer_text.txt", "some text");
  EXPECT_EQ(tokenizer("train --output " + file).code, 2);
  EXPECT_EQ(tokenizer("train --input " + empty + " --output " + file).code, 3);
  EXPECT_EQ(tokenizer("train --input " + text + " --vocab-size 10 --output " + file).code, 2);
  EXPECT_EQ(tokenizer("train --input " + text + " --pattern x --output " + file).code, 2);
  EXPECT_EQ(tokenizer("train --input " + text + " --output " + text + "/x/y").code, 74) << "below a file";
  EXPECT_EQ(tokenizer("train --input " + text + " --output /proc/x").code, 74) << "where nothing can be written";
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_EQ(tokenizer("encode --tokenizer " + file + " " + text).code, 3);
  EXPECT_EQ(tokenizer("encode --tokenizer bytes " + file).code, 3);
  const Outcome word = tokenizer("decode --tokenizer bytes", "echo 65 six");
  EXPECT_EQ(word.code, 3);
  EXPECT_NE(word.output.find("\"six\""), std::string::npos) << word.output;
  const Outcome large = tokenizer("decode --tokenizer bytes", "echo 65 257");
  EXPECT_EQ(large.code, 3);
  EXPECT_NE(large.output.find("257"), std::string::npos) << large.output;
}

}  // namespace
}  // namespace tessera
