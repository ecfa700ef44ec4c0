// Numbers that are out of range, and products that 64 bits do not hold, are refused by name and at once.
#include "launch/config/ranges.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <chrono>

#include "launch/config/override.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "parallel/schedule/schedule.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::string refusal(const std::vector<std::string>& overrides, int world_size = 1) {
  RunConfig config;
  Origins origins;
  Problems problems;
  for (const std::string& text : overrides) apply_override(text, config, origins, problems);
  problems.throw_if_any();
  const auto start = std::chrono::steady_clock::now();
  std::string message = "nothing was wrong";
  try {
    resolve(config, origins,
            {.world_size = world_size, .tokenizer_vocab_size = 257, .data = Surroundings::Data::NotNeeded});
  } catch (const UsageError& error) {
    message = error.what();
  }
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 2) << message;
  return message;
}

void expect_ranges(const google::protobuf::Descriptor& type, const std::string& prefix) {
  using google::protobuf::FieldDescriptor;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) expect_ranges(*field.message_type(), path + ".");
    const bool number = field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 ||
                        field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ||
                        field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
    if (number) {
      EXPECT_NE(range_of(path), nullptr) << path;
    }
  }
}

TEST(Ranges, EveryNumberOfAConfigHasOne) { expect_ranges(*RunConfig::descriptor(), ""); }

TEST(Ranges, AreSaidWithTheFieldAndItsValue) {
  EXPECT_EQ(refusal({"model.num_hidden_layers=1000000"}),
            "--set model.num_hidden_layers=1000000: model.num_hidden_layers = 1000000: must be from 1 to 16,384");
  for (const auto& [path, value] : {std::pair{"model.vocab_size", "288230376151711744"},
                                    {"model.intermediate_size", "1152921504606846976"},
                                    {"data.sequence_length", "100000000000"},
                                    {"data.global_batch_size", "1000000000000"},
                                    {"data.global_batch_size", "4294967304"},
                                    {"data.micro_batch_size", "4611686018427387904"},
                                    {"model.num_hidden_layers", "1000000000"},
                                    {"model.hidden_size", "9223372036854775807"},
                                    {"run.threads", "100000"}}) {
    const std::string message = refusal({std::string(path) + "=" + value});
    EXPECT_NE(message.find(std::string(path) + " = " + value + ": must be from "), std::string::npos) << message;
    EXPECT_EQ(message.find("choose"), std::string::npos)
        << "no advice is better than that of a number gone wrong: " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Ranges, ProductsAreChecked) {
  EXPECT_NE(refusal({"data.micro_batch_size=1000000", "data.global_batch_size=1000000", "data.sequence_length=100000"})
                .find("data.micro_batch_size * data.sequence_length = 1000000 * 100000 = 100000000000 tokens: a "
                      "microbatch has at most 2,147,483,647; choose micro_batch_size up to 21474"),
            std::string::npos);
  EXPECT_NE(refusal({"model.hidden_size=262144", "model.num_hidden_layers=16384", "model.intermediate_size=4194304",
                     "model.num_attention_heads=16384", "data.sequence_length=134217728", "data.micro_batch_size=8"})
                .find("more than 64 bits count"),
            std::string::npos);
  EXPECT_NE(refusal({"parallel.tp=16384", "parallel.pp=16384"}).find("ranks: there may be at most 1,048,576"),
            std::string::npos);
  EXPECT_NE(refusal({"data.global_batch_size=2147483647", "data.sequence_length=8"})
                .find("2147483647 passes: a schedule has at most 262,144"),
            std::string::npos);
}

// What is in range is taken, or refused by a rule, within a second or two.
TEST(Ranges, TheirEndsAreQuick) {
  EXPECT_EQ(refusal({"model.num_hidden_layers=16384", "model.hidden_size=64", "data.sequence_length=64"}),
            "nothing was wrong");
  EXPECT_EQ(refusal({"data.global_batch_size=4096", "data.sequence_length=8", "parallel.pp=64",
                     "parallel.schedule=1f1b", "model.num_hidden_layers=64"},
                    64),
            "nothing was wrong");
}

TEST(Ranges, OfSchedules) {
  EXPECT_EQ(schedule_size_problem(4, 8), "");
  EXPECT_EQ(schedule_size_problem(1000000, 1000000),
            "1000000 stages of 1000000 microbatches are 1000000000000 passes: a schedule has at most 262,144");
}

}  // namespace
}  // namespace tessera
