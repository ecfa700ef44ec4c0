// tessera data build and inspect, through the command line.
#include <gtest/gtest.h>

#include "launch/commands/command.h"
#include "tensor/check.h"
#include "tests/data/shards/shards.h"
#include "tests/launch/commands/command_run.h"

namespace tessera {
namespace {

using namespace testing_data;
using json = nlohmann::json;

using Output = testing::CommandRun;

Output run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "data");
  return testing::run_command(add_data, arguments);
}

class DataCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int d = 0; d < 40; ++d)
      write_file(dir_ / "corpus/" + std::to_string(d) + ".txt", "text of document " + std::to_string(d) + "\n");
    write_file(dir_ / "corpus/.hidden", "no");
    write_file(dir_ / "corpus/empty.txt", "");
  }
  std::vector<std::string> build_arguments() const {
    return {"build",    "--input",    dir_ / "corpus", "--tokenizer",           "bytes",
            "--output", dir_ / "out", "--json",        "--validation-fraction", "0.2"};
  }
  TempDirectory dir_;
};

TEST_F(DataCommand, BuildsAndInspects) {
  const Output built = run(build_arguments());
  ASSERT_EQ(built.code, 0);
  const json report = built.last_line();
  EXPECT_EQ(report["train"]["documents"].get<int>() + report["validation"]["documents"].get<int>(), 40);
  EXPECT_GT(report["validation"]["documents"], 0);
  EXPECT_EQ(report["empty_documents"], 1);
  EXPECT_NE(built.err.find("skipped 1 empty document\n"), std::string::npos) << built.err;
  EXPECT_NE(built.err.find(dir_ / "corpus/.hidden: hidden"), std::string::npos) << built.err;

  const Output inspected = run({"inspect", dir_ / "out", "--json", "--verify"});
  ASSERT_EQ(inspected.code, 0);
  const json shards = inspected.last_line();
  ASSERT_EQ(shards["shards"].size(), 2u);
  EXPECT_EQ(shards["documents"], 40);
  EXPECT_EQ(shards["tokens"], report["train"]["tokens"].get<int>() + report["validation"]["tokens"].get<int>());
  EXPECT_EQ(shards["shards"][0]["dtype"], "U16");
  EXPECT_EQ(shards["shards"][0]["longest"], 21) << "\"text of document 12\\n\" and end-of-text";
  EXPECT_EQ(shards["shards"][0]["median"], 21);
  EXPECT_EQ(shards["shards"][0]["fingerprint"], report["fingerprint"]);
  EXPECT_NE(inspected.out.find("all verified"), std::string::npos);

  const Output sampled = run({"inspect", dir_ / "out/train", "--tokenizer", "bytes", "--sample", "2"});
  EXPECT_NE(sampled.out.find("\"text of document 0\\n"), std::string::npos) << sampled.out;
}

TEST_F(DataCommand, RefusesWhatItShould) {
  run(build_arguments());
  EXPECT_THROW(run(build_arguments()), UsageError);
  auto forced = build_arguments();
  forced.push_back("--force");
  EXPECT_EQ(run(forced).code, 0);
  EXPECT_THROW(run({"inspect", dir_ / "out", "--sample", "1"}), UsageError) << "no tokenizer";
  EXPECT_THROW(run({"inspect", dir_ / "absent"}), DataError);
  EXPECT_THROW(run({"inspect", dir_ / "corpus"}), DataError) << "no shard there";
  EXPECT_THROW(run({"inspect"}), UsageError);
  EXPECT_THROW(run({"build", "--input", "x"}), UsageError);
  write_shard(dir_ / "other.h5", {{1, 2}});
  const std::string message = message_of<DataError>([&] {
    run({"inspect", dir_ / "other.h5", "--tokenizer", "bytes"});
  });
  EXPECT_NE(message.find(kFormat.tokenizer_fingerprint), std::string::npos) << message;
}

}  // namespace
}  // namespace tessera
