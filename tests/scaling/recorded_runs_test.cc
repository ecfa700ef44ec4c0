#include "scaling/recorded_runs.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

TrainingRecord finished(const std::string& name) {
  TrainingRecord record;
  record.set_name(name);
  record.set_status(TrainingRecord::FINISHED);
  record.set_step(100);
  record.set_planned_steps(100);
  record.set_tokens(50000);
  record.set_parameters(1000);
  record.set_embedding_parameters(300);
  record.set_head_parameters(200);
  record.mutable_flops()->set_matrices(2e8);
  record.mutable_flops()->set_attention(1e8);
  record.mutable_flops()->set_head(3e8);
  record.set_tokenizer("t");
  for (auto* sources : {record.mutable_train(), record.mutable_validation()}) {
    auto& source = *sources->Add();
    source.set_name("web");
    source.set_identity("0123456789abcdef");
  }
  for (const int64_t step : {50, 100}) {
    auto& validation = *record.add_validation_loss();
    validation.set_step(step);
    validation.set_dataset("web");
    validation.set_loss(step == 50 ? 4 : 3);
  }
  return record;
}

template <class Exception>
std::string message_of(const std::vector<TrainingRecord>& records, const std::string& validation = "") {
  try {
    table_of(records, Count::Total, validation);
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

TEST(RecordedRuns, TheLossIsTheLastValidation) {
  const RunTable table = table_of({finished("a")}, Count::Total);
  ASSERT_EQ(table.runs.size(), 1u);
  EXPECT_EQ(table.runs[0].loss, 3);
  EXPECT_EQ(table.runs[0].parameters, 1000);
  EXPECT_EQ(table.runs[0].tokens, 50000);
  EXPECT_EQ(table.runs[0].sample().flops, 6e8) << "as counted, not 6 N D";
  EXPECT_EQ(table.runs[0].dataset, "web@01234567/web@01234567");
}

TEST(RecordedRuns, CountsParametersInThreeWays) {
  TrainingRecord record = finished("a");
  EXPECT_EQ(parameters_of(record, Count::Total), 1000);
  EXPECT_EQ(parameters_of(record, Count::NonEmbedding), 500);
  EXPECT_EQ(parameters_of(record, Count::Compute), 2000) << "6 N D is what was computed";
  record.set_tied(true);
  EXPECT_EQ(parameters_of(record, Count::NonEmbedding), 700);
  EXPECT_EQ(count_of("compute"), Count::Compute);
  EXPECT_THROW(count_of("some"), UsageError);
}

TEST(RecordedRuns, SetsAsideByNameWhatCannotBeFitted) {
  TrainingRecord diverged = finished("b"), unfinished = finished("c"), blind = finished("d");
  diverged.set_status(TrainingRecord::DIVERGED);
  diverged.set_reason("step 8: the loss is nan");
  diverged.set_step(7);
  unfinished.set_status(TrainingRecord::UNFINISHED);
  unfinished.set_step(50);
  blind.clear_validation_loss();
  const RunTable table = table_of({finished("a"), diverged, unfinished, blind}, Count::Total);
  EXPECT_EQ(table.runs.size(), 1u);
  ASSERT_EQ(table.left_out.size(), 3u);
  expect_has(table.left_out[0], "b: it diverged after step 7 of 100 (step 8: the loss is nan)");
  expect_has(table.left_out[1], "c: unfinished: step 50 of 100");
  expect_has(table.left_out[2], "d: it has no validation loss after its last step");
  expect_has(message_of<DataError>({diverged, unfinished}), "no run that could be fitted");
}

TEST(RecordedRuns, MixedDataAndTokenizersAreRefusedByName) {
  TrainingRecord other = finished("b");
  other.mutable_train(0)->set_identity("fedcba9876543210");
  RunTable table = table_of({finished("a"), other}, Count::Total);
  EXPECT_THROW(check_one_kind(table), DataError);
  keep_only(table, "dataset", "web@fedcba98/web@01234567");
  EXPECT_EQ(table.runs.size(), 1u);
  other = finished("b");
  other.set_tokenizer("u");
  EXPECT_THROW(check_one_kind(table_of({finished("a"), other}, Count::Total)), DataError);
}

TEST(RecordedRuns, SeveralValidationSetsNeedAName) {
  TrainingRecord record = finished("a");
  record.add_validation()->set_name("books");
  auto& books = *record.add_validation_loss();
  books.set_step(100);
  books.set_dataset("books");
  books.set_loss(2);
  expect_has(message_of<DataError>({record}), "books, web");
  expect_has(message_of<UsageError>({record}, "code"), "--validation code: the runs have books, web");
  EXPECT_EQ(table_of({record}, Count::Total, "books").runs[0].loss, 2);
}

TEST(RecordedRuns, AreFoundInASweepsDirectory) {
  const std::string root = ::testing::TempDir() + "recorded_runs_test_" + std::to_string(::getpid());
  std::filesystem::create_directories(root + "/b");
  std::filesystem::create_directories(root + "/a");
  std::filesystem::create_directories(root + "/plan");
  std::filesystem::create_directories(root + "/trunks/t");
  EXPECT_THROW(read_records({root}), DataError);
  for (const char* name : {"b", "a", "trunks/t"}) write_record(root + "/" + name, finished(name));
  EXPECT_EQ(run_directories(root), (std::vector<std::string>{root + "/a", root + "/b"})) << "no trunks";
  EXPECT_EQ(read_records({root, root + "/a"}).size(), 2u) << "each once";
  EXPECT_EQ(read_records({root})[0].DebugString(), finished("a").DebugString());
  EXPECT_THROW(read_records({root + "/c"}), DataError);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace tessera
